// Overrides: users whose value is set by name.
import { useMemo, useState } from 'preact/hooks';
import { curlOf } from '../../api/client.ts';
import { errorsShownAt } from '../../api/error.ts';
import { ActionForm, useAction } from '../../components/ActionForm.tsx';
import { Button, Check, CurlButton, SelectField, Tag, TextField } from '../../components/controls.tsx';
import { Empty, EmptyList, Loaded } from '../../components/feedback.tsx';
import { confirmProduction, confirmThen, SidePanel } from '../../components/overlays.tsx';
import { SearchTable } from '../../components/SearchTable.tsx';
import { Time } from '../../components/Time.tsx';
import type { Column } from '../../components/VirtualTable.tsx';
import { change, prepareChange, type Resource } from '../../data.ts';
import { parseIds } from '../../ids.ts';
import { queryValue, setQuery } from '../../router.ts';
import { whyNotEdit } from '../../session.ts';
import { useCommands } from '../../shortcuts.ts';
import { texts, usersTexts } from '../../strings.ts';
import { definitionOf } from './FlagPage.tsx';
import { useOverrides, type Override } from './overrides.ts';
import { FLAG, flagParams, saved, withReport, type Flag } from './save.tsx';
import type { TabProps } from './tabs.tsx';

const PATTERN = `${FLAG}/users` as const;
const ONE = `${PATTERN}/{userId}` as const;

/** The most overrides that one request may set. */
const MAX = 10_000;

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
  const panel = queryValue('panel');
  const open = (name: string | null) => setQuery({ panel: name }, { replace: false });
  const why = whyNotEdit(env);
  useCommands(
    why === undefined ? [
      { id: 'override.add', title: usersTexts.add, run: () => open('add') },
      { id: 'override.paste', title: usersTexts.paste, run: () => open('paste') },
    ] : [],
    [env, flag.key, why],
  );
  const columns = useMemo(() => columnsOf(env, flag), [env, flag, why]);
  const example = () => curlOf('post', PATTERN, flagParams(env, flag.key), { body: bodyOf('alice', valuesOf(flag)[0]?.[0] ?? 'include', 'Tries it out') });
  return (
    <section class="stack">
      <div class="row">
        <Button tone="primary" disabledBecause={why} onClick={() => open('add')}>{usersTexts.add}</Button>
        <Button disabledBecause={why} onClick={() => open('paste')}>{usersTexts.paste}</Button>
        <CurlButton command={() => curlOf('get', PATTERN, flagParams(env, flag.key))} />
      </div>
      <div class="fill stack">
        <Loaded from={resource}>
          {(all) => all.length === 0
            ? <EmptyList title={usersTexts.none} hint={usersTexts.noneHint} command={example} />
            : (
              <SearchTable
                name="user" search={usersTexts.search} textOf={({ userId, reason }) => `${userId} ${reason ?? ''}`} countOf={(shown) => usersTexts.shown(shown, all.length)}
                noMatch={<Empty title={usersTexts.noMatch} />} label={usersTexts.search} rows={all} columns={columns} keyOf={(row) => row.userId}
              />
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
  return variant ?? valuesOf(flag).find(([value]) => value === overrideType)?.[1] ?? overrideType;
}

function columnsOf(env: string, flag: Flag): Column<Override>[] {
  return [
    { title: usersTexts.columns.user, cell: (row) => <strong title={row.userId}>{row.userId}</strong> },
    { title: usersTexts.columns.value, cell: (row) => <Tag tone={row.overrideType === 'unreadable' ? 'bad' : 'neutral'} title={row.broken ?? ''}>{shownValue(flag, row)}</Tag> },
    { title: usersTexts.columns.reason, class: 'wide', cell: (row) => <span title={row.reason ?? ''}>{row.reason}</span> },
    { title: usersTexts.columns.by, class: 'wide', cell: (row) => row.createdBy },
    { title: usersTexts.columns.at, class: 'wide time-column', cell: (row) => <Time at={row.createdAt} /> },
    {
      title: usersTexts.columns.change,
      class: 'change-column',
      cell: (row) => (
        <Button tone="quiet" label={`${usersTexts.remove}: ${row.userId}`} disabledBecause={whyNotEdit(env)} onClick={() => removeOverride(env, flag, row)}>
          {usersTexts.remove}
        </Button>
      ),
    },
  ];
}

/** The request that sets an override again, for Undo; undefined if it was unreadable. */
function setAgain(target: ReturnType<typeof flagParams>, before: Override) {
  return before.overrideType === 'unreadable' ? undefined : () => change('post', PATTERN, target, { body: entryOf(before) });
}

function removeOverride(env: string, flag: Flag, override: Override): void {
  const target = flagParams(env, flag.key);
  const removing = prepareChange('delete', ONE, { ...target, userId: override.userId });
  confirmProduction({
    env,
    title: usersTexts.removeTitle(override.userId, flag.key, env),
    body: <p>{usersTexts.removeText}</p>,
    action: usersTexts.remove,
    danger: true,
    ...withReport(removing, usersTexts.removed(override.userId), setAgain(target, override)),
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
  const action = useAction();
  const target = flagParams(env, flag.key);
  const adding = prepareChange('post', PATTERN, target, { body: bodyOf(user, value, reason) });
  const save = () => void action.run(async () => {
    const known = resource.data.peek();
    const before = known?.find((override) => override.userId === user);
    const undo = before ? setAgain(target, before) : known && (() => change('delete', ONE, { ...target, userId: user }));
    saved(usersTexts.added(user), await adding.send(), undo);
    onClose();
  });
  return (
    <SidePanel title={usersTexts.add} onClose={onClose}>
      <ActionForm
        action={action} submit={save} label={texts.save} why={whyNotEdit(env)} curl={adding.curl}
      >
        <TextField class="fill" label={usersTexts.user} value={user} onInput={setUser} errors={errorsShownAt(action.error, 'userId')} spellcheck={false} />
        <SelectField label={usersTexts.value} value={value} options={values} onChange={setValue} errors={errorsShownAt(action.error, 'variant')} />
        <TextField class="fill" label={usersTexts.reason} value={reason} onInput={setReason} errors={errorsShownAt(action.error, 'reason')} />
      </ActionForm>
    </SidePanel>
  );
}

function PastePanel({ env, flag, resource, onClose }: PanelProps) {
  const values = valuesOf(flag);
  const [text, setText] = useState('');
  const [value, setValue] = useState<Value>(values[0]?.[0] ?? 'include');
  const [reason, setReason] = useState('');
  const [replace, setReplace] = useState(false);
  const action = useAction();
  const known = resource.data.value;
  const existing = known ?? [];
  const ids = parseIds(text);
  const overrides = ids.map((id) => bodyOf(id, value, reason));
  const earlier = new Map(existing.map((override) => [override.userId, override]));
  const same = overrides.filter((entry) => {
    const old = earlier.get(entry.userId);
    return old?.overrideType === entry.overrideType && old.variant === entry.variant && (old.reason ?? undefined) === entry.reason;
  }).length;
  const changed = overrides.filter(({ userId }) => earlier.has(userId)).length - same;
  const removed = replace ? existing.length - same - changed : 0;
  const put = (mode: 'replace' | 'merge', ifMatch: string | undefined, list: unknown[]) =>
    prepareChange('put', PATTERN, { ...flagParams(env, flag.key), mode }, { body: { overrides: list }, ifMatch });
  const etag = resource.etag.value;
  const pasting = put(replace ? 'replace' : 'merge', etag ?? '*', overrides);
  const save = () => action.run(async () => {
    const reply = await pasting.send();
    const lasting = !etag || existing.length > MAX || existing.some(({ overrideType }) => overrideType === 'unreadable');
    saved(usersTexts.saved(reply.data.total), reply, lasting ? undefined : put('replace', reply.etag, existing.map(entryOf)).send);
    onClose();
  });
  const why = whyNotEdit(env) ?? (replace ? etag ? undefined : texts.conflict.title : ids.length === 0 ? usersTexts.noIds : undefined);
  const preview = known && usersTexts.preview(ids.length - same - changed, changed, same, removed);
  const ask = () => (removed > 0 ? confirmThen : confirmProduction)({
    env,
    title: `${usersTexts.paste}: ${flag.key}, ${env}`,
    body: <p>{preview}</p>,
    action: texts.save,
    danger: removed > 0,
    curl: pasting.curl,
    run: save,
  });
  return (
    <SidePanel title={usersTexts.paste} onClose={onClose}>
      <ActionForm action={action} submit={ask} label={texts.save} why={why} curl={pasting.curl}>
        <TextField class="fill" label={usersTexts.users} hint={usersTexts.usersHint} rows={10} value={text} onInput={setText} spellcheck={false} />
        <SelectField label={usersTexts.value} value={value} options={values} onChange={setValue} />
        <TextField class="fill" label={usersTexts.reason} value={reason} onInput={setReason} />
        <Check label={usersTexts.replace} checked={replace} onChange={setReplace} />
        <p role="status">{preview}</p>
      </ActionForm>
    </SidePanel>
  );
}
