// Which value a context gets in an environment, and why. The list of recent contexts is stored in this browser only.
// The page does not write a context into its address; only the link that the copy button makes contains one.
import { useEffect, useRef, useState } from 'preact/hooks';
import { request } from '../../api/client.ts';
import { errorsShownAt } from '../../api/error.ts';
import type { Explanation } from '../../api/explanation.ts';
import { isObject, pretty, textOf, valueOf } from '../../api/json.ts';
import { CONTEXTS } from '../../auth.ts';
import { ActionForm, useAction } from '../../components/ActionForm.tsx';
import { AddButton, Button, CopyButton, SelectField, TextField } from '../../components/controls.tsx';
import { withItem } from '../../forms.ts';
import { stepSentence } from '../../explanation.ts';
import { flagPath } from '../../route.ts';
import { href, queryValue } from '../../router.ts';
import { environments } from '../../session.ts';
import { evaluationReasons, explainTexts, texts } from '../../strings.ts';
import { FLAG, flagParams } from './save.tsx';
import type { TabProps } from './tabs.tsx';

const KEPT = 8;

type Rows = [name: string, text: string][];

function recentContexts(): string[] {
  const stored = valueOf(localStorage.getItem(CONTEXTS) ?? '[]');
  return Array.isArray(stored) ? stored.map(String) : [];
}

const rowsOf = (context: object): Rows => Object.entries(context).map(([name, value]) => [name, textOf(value)]);
const contextOf = (rows: Rows) => Object.fromEntries(rows.filter(([name, text]) => name !== '' && text !== '').map(([name, text]) => [name, valueOf(text)]));

/** The user, and the attributes that the rules of the flag read, without those that only segments read. */
function suggested(definition: unknown): Rows {
  const read = [...JSON.stringify(definition ?? {}).matchAll(/"var":\[?"([^".]+)/g)].map(([, name = '']) => name);
  return [...new Set(['targetingKey', ...read])].filter((name) => !name.startsWith('$')).map((name) => [name, '']);
}

export function ExplainTab({ env, flag }: TabProps) {
  const linked = valueOf(queryValue('context'));
  const [rows, setRows] = useState<Rows>(isObject(linked) ? rowsOf(linked) : suggested(flag.definition));
  /** While the context is edited as JSON. */
  const [json, setJson] = useState<string | null>(null);
  const [where, setWhere] = useState(env);
  const action = useAction();
  const [found, setFound] = useState<Explanation | null>(null);
  const result = useRef<HTMLDivElement>(null);
  useEffect(() => {
    // The result can be below the visible part of the page.
    if (found) result.current?.scrollIntoView({ block: 'nearest' });
  }, [found]);
  const parsed = json === null ? contextOf(rows) : valueOf(json);
  const context = isObject(parsed) ? parsed : null;
  const explaining = request('post', `${FLAG}/explain`, flagParams(where, flag.key), { body: { context } });
  const show = (next: object) => {
    setRows(rowsOf(next));
    setJson(null);
  };
  const run = () => void action.run(async () => {
    setFound((await explaining.send()).data);
    const text = JSON.stringify(context);
    localStorage.setItem(CONTEXTS, JSON.stringify([text, ...recentContexts().filter((other) => other !== text)].slice(0, KEPT)));
  });
  const invalid = context ? errorsShownAt(action.error, 'context') : [explainTexts.badJson];
  const recent = recentContexts();
  return (
    <>
      <ActionForm
        class="card" action={action} submit={run} label={explainTexts.run} why={context ? undefined : explainTexts.badJson} curl={explaining.curl}
        more={
          <>
            {json === null
              ? <><AddButton onClick={() => setRows([...rows, ['', '']])}>{explainTexts.add}</AddButton><Button onClick={() => setJson(pretty(context))}>{explainTexts.asJson}</Button></>
              : <Button disabledBecause={context ? undefined : explainTexts.badJson} onClick={() => context && show(context)}>{explainTexts.asForm}</Button>}
            <CopyButton text={() => location.origin + href(flagPath(where, flag.key, { tab: 'explain', context: JSON.stringify(context) }))}>{explainTexts.link}</CopyButton>
          </>
        }
      >
        <h2>{explainTexts.title}</h2>
        <SelectField label={texts.environment} value={where} options={environments.value} onChange={setWhere} />
        {json === null ? (
          <>
            {rows.map(([name, text], index) => {
              const change = (row: Rows[number]) => setRows(withItem(rows, index, row));
              return (
                <div key={index} class="form-row">
                  <TextField label={explainTexts.name} value={name} onInput={(next) => change([next, text])} />
                  <TextField class="grow" label={explainTexts.value} value={text} onInput={(next) => change([name, next])} />
                </div>
              );
            })}
            <p class="hint">{explainTexts.valueHint}</p>
          </>
        ) : <TextField label={explainTexts.json} rows={8} value={json} onInput={setJson} errors={invalid} spellcheck={false} />}
        {recent.length > 0 && (
          <SelectField
            label={explainTexts.recent}
            value=""
            options={[['', '—'], ...recent]}
            onChange={(text) => { const value = valueOf(text); if (isObject(value)) show(value); }}
          />
        )}
      </ActionForm>
      <div role="status" ref={result}>
        {found && !action.error && (
          <section class="stack">
            <p>
              <strong>{found.error ? found.error.message : found.value === null && found.variant === null ? explainTexts.appDefault : explainTexts.result(JSON.stringify(found.value), found.variant)}</strong>
              {' '}· {found.reason}: {evaluationReasons[found.reason]}
            </p>
            <h3>{explainTexts.path}</h3>
            <ol class="trace fill">{found.path.map((step, index) => (
              <li key={index} style={step.step === 'operation' ? { paddingLeft: `${8 + step.depth * 20}px` } : {}}>
                {step.step === 'operation' ? <><code>{stepSentence(step)}</code> <span class="muted">{step.evaluator && `${step.evaluator} `}{step.pointer}</span></> : stepSentence(step)}
              </li>
            ))}</ol>
          </section>
        )}
      </div>
    </>
  );
}
