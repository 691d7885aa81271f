// Overrides: users whose value is set by name.
import { useMemo, useRef, useState } from 'preact/hooks';
import { asApiError, curlOf, send } from '../../api/client.ts';
import { errorsAt, type ApiError } from '../../api/error.ts';
import { Button, CopyButton, CurlButton, SelectField, Tag, TextField } from '../../components/controls.tsx';
import { Banner, Empty, ErrorText, Loaded } from '../../components/feedback.tsx';
import { confirmThen, SidePanel, toast } from '../../components/overlays.tsx';
import { Time } from '../../components/Time.tsx';
import { VirtualTable, type Column } from '../../components/VirtualTable.tsx';
import { isProduction } from '../../config.ts';
import type { Resource } from '../../data.ts';
import { parseIds } from '../../ids.ts';
import { queryValue, setQuery } from '../../router.ts';
import { whyNotEdit } from '../../session.ts';
import { useCommands } from '../../shortcuts.ts';
import { texts, usersTexts } from '../../strings.ts';
import { definitionOf } from './FlagPage.tsx';
import { useOverrides, type Override } from './overrides.ts';
import { attempt, flagsChanged, savedText, type Flag } from './save.tsx';
import type { TabProps } from './tabs.tsx';

const PATTERN = '/api/admin/flags/{flagKey}/users';
const ONE = '/api/admin/flags/{flagKey}/users/{userId}';

/** What an override gives its user. */
type Value = 'include' | 'exclude' | `variant:${string}`;

function valuesOf(flag: Flag): readonly (readonly [Value, string])[] {
  const definition = definitionOf(flag);
  if (!definition) return [['include', usersTexts.include], ['exclude', usersTexts.exclude]];
  const names = Object.keys(definition.variants ?? {});
  return [...names.map((name) => [`variant:${name}`, name] as const), ['exclude', usersTexts.excludeTyped]];
}

function bodyOf(userId: string, value: Value, reason: string | null) {
  const type = value === 'exclude' ? 'exclude' as const : 'include' as const;
  return {
    userId,
    overrideType: type,
    ...(value.startsWith('variant:') && { variant: value.slice('variant:'.length) }),
    ...(reason !== null && reason !== '' && { reason }),
  };
}

/** An override as the API takes it. */
function entryOf({ userId, overrideType, variant, reason }: Override) {
  return { userId, overrideType, ...(variant !== undefined && { variant }), ...(reason !== null && { reason }) };
}

export function UsersTab({ env, flag }: TabProps) {
  const resource = useOverrides(env, flag.key);
  const search = useRef<HTMLInputElement>(null);
  const query = queryValue('user');
  const panel = queryValue('panel');
  const open = (name: string | null) => setQuery({ panel: name }, { replace: false });
  const why = whyNotEdit(env);
  useCommands(
    [
      { id: 'search', title: usersTexts.search, keys: '/', run: () => search.current?.focus() },
      ...(why === undefined ? [
        { id: 'override.add', title: usersTexts.add, run: () => open('add') },
        { id: 'override.paste', title: usersTexts.paste, run: () => open('paste') },
      ] : []),
    ],
    [env, flag.key, why],
  );
  const overrides = resource.data.value;
  const shown = useMemo(() => {
    const text = query.toLowerCase();
    return (overrides ?? []).filter(({ userId, reason }) => `${userId} ${reason ?? ''}`.toLowerCase().includes(text));
  }, [overrides, query]);
  const columns = useMemo(() => columnsOf(env, flag), [env, flag, why]);
  const example = () => curlOf('post', PATTERN, { path: { flagKey: flag.key }, query: { environment: env }, body: bodyOf('alice', valuesOf(flag)[0]?.[0] ?? 'include', 'Tries it out') });
  return (
    <section class="stack">
      <div class="row">
        <Button tone="primary" disabledBecause={why} onClick={() => open('add')}>{usersTexts.add}</Button>
        <Button disabledBecause={why} onClick={() => open('paste')}>{usersTexts.paste}</Button>
        <CurlButton command={() => curlOf('get', PATTERN, { path: { flagKey: flag.key }, query: { environment: env } })} />
      </div>
      <div class="fill">
        <Loaded from={resource}>
          {(all) => all.length === 0
            ? (
              <Empty title={usersTexts.none}>
                <p>{usersTexts.noneHint}</p>
                <pre class="snippet" tabIndex={0}>{example()}</pre>
                <CopyButton text={example} />
              </Empty>
            )
            : (
              <>
                <div class="row filters">
                  <input
                    ref={search} type="search" class="search" value={query} aria-label={usersTexts.search} placeholder={`${usersTexts.search}  ( / )`}
                    onInput={(event) => setQuery({ user: event.currentTarget.value })}
                  />
                  <span class="muted" role="status">{usersTexts.shown(shown.length, all.length)}</span>
                </div>
                {shown.length === 0
                  ? <Empty title={usersTexts.noMatch} />
                  : <VirtualTable label={usersTexts.shown(shown.length, all.length)} rows={shown} columns={columns} keyOf={(row) => row.userId} />}
              </>
            )}
        </Loaded>
      </div>
      {panel === 'add' && <AddPanel env={env} flag={flag} resource={resource} onClose={() => open(null)} />}
      {panel === 'paste' && <PastePanel env={env} flag={flag} resource={resource} onClose={() => open(null)} />}
    </section>
  );
}

function shownValue(flag: Flag, { overrideType, variant }: Override): string {
  if (overrideType === 'unreadable') return usersTexts.broken;
  if (variant !== undefined) return variant;
  if (flag.definition !== null) return usersTexts.excludeTyped;
  return overrideType === 'include' ? usersTexts.include : usersTexts.exclude;
}

function columnsOf(env: string, flag: Flag): Column<Override>[] {
  const { columns } = usersTexts;
  return [
    { title: columns.user, cell: (row) => <strong title={row.userId}>{row.userId}</strong> },
    { title: columns.value, cell: (row) => <Tag tone={row.overrideType === 'unreadable' ? 'bad' : 'neutral'} title={row.broken ?? ''}>{shownValue(flag, row)}</Tag> },
    { title: columns.reason, class: 'wide', cell: (row) => <span title={row.reason ?? ''}>{row.reason}</span> },
    { title: columns.by, class: 'wide', cell: (row) => row.createdBy },
    { title: columns.at, class: 'wide time-column', cell: (row) => <Time at={row.createdAt} /> },
    {
      title: columns.change,
      class: 'change-column',
      cell: (row) => (
        <Button tone="quiet" label={`${usersTexts.remove}: ${row.userId}`} disabledBecause={whyNotEdit(env)} onClick={() => removeOverride(env, flag, row)}>
          {usersTexts.remove}
        </Button>
      ),
    },
  ];
}

function removeOverride(env: string, flag: Flag, override: Override): void {
  const target = { path: { flagKey: flag.key, userId: override.userId }, query: { environment: env } };
  const run = () => void attempt(async () => {
    const reply = await send('delete', ONE, target);
    flagsChanged(env, flag.key);
    const undo = async () => {
      if (await attempt(() => send('post', PATTERN, { ...target, body: entryOf(override) }))) toast(texts.undone);
      flagsChanged(env, flag.key);
    };
    toast(savedText(usersTexts.removed(override.userId), reply.invalidated), override.overrideType === 'unreadable' ? {} : { undo });
  });
  if (!isProduction(env)) return run();
  confirmThen({
    title: usersTexts.removeTitle(override.userId, flag.key, env),
    body: <p><strong>{texts.confirmProduction}</strong> {usersTexts.removeText}</p>,
    action: usersTexts.remove,
    danger: true,
    curl: () => curlOf('delete', ONE, target),
    run,
  });
}

interface PanelProps {
  env: string;
  flag: Flag;
  resource: Resource<Override[]>;
  onClose: () => void;
}

function AddPanel({ env, flag, resource, onClose }: PanelProps) {
  const values = valuesOf(flag);
  const [user, setUser] = useState('');
  const [value, setValue] = useState<Value>(values[0]?.[0] ?? 'include');
  const [reason, setReason] = useState('');
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);
  const request = { path: { flagKey: flag.key }, query: { environment: env }, body: bodyOf(user, value, reason) };
  const save = async () => {
    setBusy(true);
    const before = resource.data.peek()?.find((override) => override.userId === user);
    try {
      const reply = await send('post', PATTERN, request);
      flagsChanged(env, flag.key);
      toast(savedText(usersTexts.added(user), reply.invalidated), {
        undo: async () => {
          const path = { flagKey: flag.key, userId: user };
          const undone = await attempt<unknown>(() => before
            ? send('post', PATTERN, { ...request, body: entryOf(before) })
            : send('delete', ONE, { path, query: request.query }));
          flagsChanged(env, flag.key);
          if (undone) toast(texts.undone);
        },
      });
      onClose();
    } catch (cause) {
      setError(asApiError(cause));
      setBusy(false);
    }
  };
  const atFields = errorsAt(error, 'userId').length + errorsAt(error, 'reason').length + errorsAt(error, 'variant').length > 0;
  return (
    <SidePanel title={usersTexts.add} onClose={onClose}>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          if (!busy && whyNotEdit(env) === undefined) void save();
        }}
      >
        {error && !atFields && <Banner tone="bad"><ErrorText error={error} /></Banner>}
        <TextField class="fill" label={usersTexts.user} value={user} onInput={setUser} errors={errorsAt(error, 'userId')} spellcheck={false} />
        <SelectField label={usersTexts.value} value={value} options={values} onChange={setValue} errors={errorsAt(error, 'variant')} />
        <TextField class="fill" label={usersTexts.reason} value={reason} onInput={setReason} errors={errorsAt(error, 'reason')} />
        <div class="row">
          <Button type="submit" tone="primary" busy={busy} disabledBecause={whyNotEdit(env)}>{texts.save}</Button>
          <CurlButton command={() => curlOf('post', PATTERN, request)} />
        </div>
      </form>
    </SidePanel>
  );
}

function PastePanel({ env, flag, resource, onClose }: PanelProps) {
  const values = valuesOf(flag);
  const [text, setText] = useState('');
  const [value, setValue] = useState<Value>(values[0]?.[0] ?? 'include');
  const [reason, setReason] = useState('');
  const [replace, setReplace] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);
  const existing = resource.data.value ?? [];
  const ids = parseIds(text);
  const overrides = ids.map((id) => bodyOf(id, value, reason));
  const known = new Map(existing.map((override) => [override.userId, override]));
  const same = overrides.filter((entry) => {
    const old = known.get(entry.userId);
    return old?.overrideType === entry.overrideType && old.variant === entry.variant && (old.reason ?? undefined) === entry.reason;
  }).length;
  const changed = overrides.filter(({ userId }) => known.has(userId)).length - same;
  const removed = replace ? existing.length - same - changed : 0;
  const query = { environment: env, mode: replace ? 'replace' : 'merge' };
  const request = { path: { flagKey: flag.key }, query, body: { overrides }, ifMatch: resource.etag.value ?? '*' };
  const save = async () => {
    setBusy(true);
    try {
      const reply = await send('put', PATTERN, request);
      const unreadable = existing.some(({ overrideType }) => overrideType === 'unreadable');
      const undo = async () => {
        const body = { overrides: existing.map(entryOf) };
        const undone = await attempt(() => send('put', PATTERN, { ...request, query: { environment: env, mode: 'replace' }, ifMatch: reply.etag, body }));
        flagsChanged(env, flag.key);
        if (undone) toast(texts.undone);
      };
      flagsChanged(env, flag.key);
      toast(savedText(usersTexts.saved(reply.data.total), reply.invalidated), unreadable ? {} : { undo });
      onClose();
    } catch (cause) {
      const failure = asApiError(cause);
      setError(failure);
      setBusy(false);
      if (failure.conflict) await resource.reload();
    }
  };
  const why = whyNotEdit(env) ?? (ids.length === 0 && !replace ? usersTexts.noIds : undefined);
  const preview = usersTexts.preview(ids.length - same - changed, changed, same, removed);
  const ask = () => {
    if (!isProduction(env) && removed === 0) return void save();
    confirmThen({
      title: `${usersTexts.paste}: ${flag.key}, ${env}`,
      body: <p>{isProduction(env) && <strong>{texts.confirmProduction}</strong>} {preview}</p>,
      action: texts.save,
      danger: removed > 0,
      curl: () => curlOf('put', PATTERN, request),
      run: () => void save(),
    });
  };
  return (
    <SidePanel title={usersTexts.paste} onClose={onClose}>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          if (!busy && why === undefined) ask();
        }}
      >
        {error && <Banner tone="bad">{error.conflict ? usersTexts.conflict : <ErrorText error={error} />}</Banner>}
        <TextField class="fill" label={usersTexts.users} hint={usersTexts.usersHint} rows={10} value={text} onInput={setText} spellcheck={false} />
        <SelectField label={usersTexts.value} value={value} options={values} onChange={setValue} />
        <TextField class="fill" label={usersTexts.reason} value={reason} onInput={setReason} />
        <label class="check">
          <input type="checkbox" checked={replace} onChange={(event) => setReplace(event.currentTarget.checked)} /> {usersTexts.replace}
        </label>
        <p role="status">{preview}</p>
        <div class="row">
          <Button type="submit" tone="primary" busy={busy} disabledBecause={why}>{texts.save}</Button>
          <CurlButton command={() => curlOf('put', PATTERN, request)} />
        </div>
      </form>
    </SidePanel>
  );
}
