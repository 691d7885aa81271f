// The form for a new flag.
import { useState } from 'preact/hooks';
import { errorsShownAt } from '../api/error.ts';
import { ActionForm, useAction } from '../components/ActionForm.tsx';
import { Check, SelectField, TextField } from '../components/controls.tsx';
import { SidePanel } from '../components/overlays.tsx';
import { prepareChange } from '../data.ts';
import { numberOf } from '../forms.ts';
import { flagPath } from '../route.ts';
import { navigate } from '../router.ts';
import { whyNotEdit } from '../session.ts';
import { createTexts, flagKinds } from '../strings.ts';
import { saved } from './flag/save.tsx';

type Kind = keyof typeof flagKinds;

/** A definition to start from; the rules follow on the flag's own page. */
const DEFINITIONS: Record<Exclude<Kind, 'simple'>, unknown> = {
  boolean: { variants: { on: true, off: false }, defaultVariant: 'off' },
  string: { variants: { a: 'a', b: 'b' }, defaultVariant: 'a' },
  number: { variants: { low: 1, high: 2 }, defaultVariant: 'low' },
  object: { variants: { a: {}, b: {} }, defaultVariant: 'a' },
};

export function CreateFlag({ env, onClose }: { env: string; onClose: () => void }) {
  const [key, setKey] = useState('');
  const [description, setDescription] = useState('');
  const [kind, setKind] = useState<Kind>('simple');
  const [percentage, setPercentage] = useState('0');
  const [enabled, setEnabled] = useState(false);
  const action = useAction();
  const body = {
    key,
    enabled,
    ...(description !== '' && { description }),
    ...(kind === 'simple' ? { rolloutPercentage: numberOf(percentage) as number } : { definition: DEFINITIONS[kind] }),
  };
  const creating = prepareChange('post', '/api/admin/flags', { environment: env }, { body });
  const create = () => void action.run(async () => {
    const reply = await creating.send();
    saved(createTexts.done(key, env), reply);
    navigate(flagPath(env, key, kind === 'simple' ? {} : { tab: 'rules' }));
  });
  return (
    <SidePanel title={createTexts.title(env)} onClose={onClose}>
      <ActionForm
        action={action} submit={create} label={createTexts.submit} why={whyNotEdit(env)} curl={creating.curl}
      >
        <TextField class="fill" label={createTexts.key} hint={createTexts.keyHint} value={key} onInput={setKey} errors={errorsShownAt(action.error, 'key')} spellcheck={false} />
        <TextField class="fill" label={createTexts.description} value={description} onInput={setDescription} errors={errorsShownAt(action.error, 'description')} />
        <SelectField label={createTexts.kind} value={kind} onChange={setKind} options={Object.entries(flagKinds) as [Kind, string][]} />
        {kind === 'simple' && (
          <TextField type="number" label={createTexts.percentage} value={percentage} onInput={setPercentage} errors={errorsShownAt(action.error, 'rolloutPercentage')} />
        )}
        <Check label={createTexts.enabled} checked={enabled} onChange={setEnabled} />
      </ActionForm>
    </SidePanel>
  );
}
