// The form for a new flag.
import { useState } from 'preact/hooks';
import { asApiError, curlOf, send } from '../api/client.ts';
import { errorsAt, type ApiError } from '../api/error.ts';
import { Button, CurlButton, SelectField, TextField } from '../components/controls.tsx';
import { Banner, ErrorText } from '../components/feedback.tsx';
import { SidePanel, toast } from '../components/overlays.tsx';
import { flagPath } from '../route.ts';
import { navigate } from '../router.ts';
import { whyNotEdit } from '../session.ts';
import { createTexts } from '../strings.ts';
import { flagsChanged, savedText } from './flag/save.tsx';

type Kind = keyof typeof createTexts.kinds;

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
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);
  const body = {
    key,
    enabled,
    ...(description !== '' && { description }),
    ...(kind === 'simple' ? { rolloutPercentage: percentage === '' ? 0 : Number(percentage) } : { definition: DEFINITIONS[kind] }),
  };
  const request = { query: { environment: env }, body };
  const fields = Object.keys(error?.fields ?? {});
  const shownAtFields = fields.length > 0 && fields.every((field) => ['key', 'description', 'rolloutPercentage'].includes(field));
  const create = async () => {
    setBusy(true);
    try {
      const reply = await send('post', '/api/admin/flags', request);
      flagsChanged(env, key);
      toast(savedText(createTexts.done(key, env), reply.invalidated));
      navigate(flagPath(env, key, kind === 'simple' ? {} : { tab: 'rules' }));
    } catch (cause) {
      setError(asApiError(cause));
      setBusy(false);
    }
  };
  return (
    <SidePanel title={createTexts.title(env)} onClose={onClose}>
      <form
        class="stack"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          if (!busy && whyNotEdit(env) === undefined) void create();
        }}
      >
        {error && !shownAtFields && <Banner tone="bad"><ErrorText error={error} /></Banner>}
        <TextField class="fill" label={createTexts.key} hint={createTexts.keyHint} value={key} onInput={setKey} errors={errorsAt(error, 'key')} spellcheck={false} />
        <TextField class="fill" label={createTexts.description} value={description} onInput={setDescription} errors={errorsAt(error, 'description')} />
        <SelectField label={createTexts.kind} value={kind} onChange={setKind} options={Object.entries(createTexts.kinds) as [Kind, string][]} />
        {kind === 'simple' && (
          <TextField type="number" label={createTexts.percentage} value={percentage} onInput={setPercentage} errors={errorsAt(error, 'rolloutPercentage')} />
        )}
        <label class="check">
          <input type="checkbox" checked={enabled} onChange={(event) => setEnabled(event.currentTarget.checked)} /> {createTexts.enabled}
        </label>
        <div class="row">
          <Button type="submit" tone="primary" busy={busy} disabledBecause={whyNotEdit(env)}>{createTexts.submit}</Button>
          <CurlButton command={() => curlOf('post', '/api/admin/flags', request)} />
        </div>
      </form>
    </SidePanel>
  );
}
