// The command palette (Ctrl/⌘ K) and the list of shortcuts (?).
import { signal } from '@preact/signals-core';
import { useEffect, useId, useRef, useState } from 'preact/hooks';
import { matcherOf } from '../forms.ts';
import { useFlagRows } from '../pages/flagRows.ts';
import { flagPath } from '../route.ts';
import { navigate } from '../router.ts';
import { environment } from '../session.ts';
import { commands, shownKeys, useCommands, type Command } from '../shortcuts.ts';
import { paletteTexts } from '../strings.ts';
import { Dialog } from './overlays.tsx';

const open = signal<'palette' | 'keys' | null>(null);
const MAX_SHOWN = 50;

/** Of several commands with one id, the last one counts. */
function offered(list: readonly Command[]): Command[] {
  return [...new Map(list.map((command) => [command.id, command])).values()];
}

export function openPalette(): void {
  open.value = 'palette';
}

export function Palette() {
  useCommands([
    { id: 'palette', title: paletteTexts.title, keys: 'mod+k', hidden: true, run: openPalette },
    { id: 'keys', title: paletteTexts.keys, keys: '?', keywords: 'help shortcuts', run: () => { open.value = 'keys'; } },
  ]);
  if (open.value === null) return null;
  return open.value === 'palette' ? <CommandList /> : <KeyList />;
}

function close(): void {
  open.value = null;
}

function CommandList() {
  const env = environment.value;
  const flags = useFlagRows(env).data.value?.flags ?? [];
  const [query, setQuery] = useState('');
  const [chosen, setChosen] = useState(0);
  const id = useId();
  const list = useRef<HTMLUListElement>(null);
  const matches = matcherOf(query);
  const found: Command[] = offered(commands.value).filter(({ hidden, title, keywords }) => hidden !== true && matches(`${title} ${keywords ?? ''}`));
  if (query.trim() !== '') {
    for (const { key, description, archived } of flags) {
      if (found.length >= MAX_SHOWN) break;
      if (!archived && matches(`${key} ${description ?? ''}`)) {
        found.push({ id: `flag.${key}`, title: paletteTexts.flag(key, env), run: () => navigate(flagPath(env, key)) });
      }
    }
  }
  const current = Math.min(chosen, found.length - 1);
  useEffect(() => {
    list.current?.children[current]?.scrollIntoView({ block: 'nearest' });
  }, [current]);
  const run = (command: Command | undefined) => {
    if (!command) return;
    close();
    // After the dialog has returned the focus, which the command may move.
    setTimeout(command.run);
  };
  return (
    <Dialog title={paletteTexts.title} onClose={close} class="palette">
      <input
        type="text" role="combobox" aria-label={paletteTexts.search} placeholder={paletteTexts.search} value={query} autocomplete="off"
        aria-expanded="true" aria-autocomplete="list" aria-controls={id} aria-activedescendant={current < 0 ? undefined : `${id}-${current}`}
        onInput={(event) => {
          setQuery(event.currentTarget.value);
          setChosen(0);
        }}
        onKeyDown={(event) => {
          const by = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0;
          if (by !== 0 && found.length > 0) setChosen((current + by + found.length) % found.length);
          else if (event.key === 'Enter') run(found[current]);
          else return;
          event.preventDefault();
        }}
      />
      <ul ref={list} id={id} role="listbox" aria-label={paletteTexts.title} class="commands">
        {found.map((command, index) => (
          <li key={command.id} id={`${id}-${index}`} role="option" aria-selected={index === current} onClick={() => run(command)}>
            {command.title} {command.keys && <kbd>{shownKeys(command.keys)}</kbd>}
          </li>
        ))}
      </ul>
      <p role="status" class={found.length === 0 ? '' : 'visually-hidden'}>{paletteTexts.found(found.length)}</p>
    </Dialog>
  );
}

function KeyList() {
  return (
    <Dialog title={paletteTexts.keys} onClose={close}>
      <table class="table">
        <tbody>
          {offered(commands.value).filter(({ keys }) => keys !== undefined).map(({ id, title, keys = '' }) => (
            <tr key={id}><th scope="row">{title}</th><td><kbd>{shownKeys(keys)}</kbd></td></tr>
          ))}
          <tr><th scope="row">{paletteTexts.open}</th><td><kbd>Enter</kbd></td></tr>
        </tbody>
      </table>
    </Dialog>
  );
}
