// Commands of the current page and of the whole console. The palette lists them; some have keys.
import { signal } from '@preact/signals-core';
import { useEffect } from 'preact/hooks';

export interface Command {
  /** A later command with the same id replaces the earlier one while its page is open. */
  id: string;
  title: string;
  /** `j`, `?`, or `mod+k` for Ctrl or ⌘. */
  keys?: string;
  /** More words that find it in the palette. */
  keywords?: string;
  /** Left out of the palette, as for moving in a list. */
  hidden?: boolean;
  run(): void;
}

export const commands = signal<readonly Command[]>([]);

/** Offers commands while a component is shown. */
export function useCommands(list: Command[], dependencies: readonly unknown[] = []): void {
  useEffect(() => {
    commands.value = [...commands.peek(), ...list];
    return () => {
      commands.value = commands.peek().filter((command) => !list.includes(command));
    };
  }, dependencies);
}

/** `mod+k` as the person's keyboard shows it. */
export function shownKeys(keys: string): string {
  const mac = navigator.platform.startsWith('Mac');
  return keys.replace('mod+', mac ? '⌘ ' : 'Ctrl ').replace(/(^| )([a-z])$/, (_, space: string, key: string) => space + key.toUpperCase());
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.closest('input:not([type=checkbox]):not([type=radio]), textarea, select') !== null;
}

export function startShortcuts(): void {
  document.addEventListener('keydown', (event) => {
    if (event.defaultPrevented || event.isComposing || event.altKey) return;
    const mod = event.ctrlKey || event.metaKey;
    const keys = mod ? `mod+${event.key.toLowerCase()}` : event.key;
    const command = commands.peek().findLast((candidate) => candidate.keys === keys);
    // In a field, letters are text; behind an open dialog, nothing happens.
    if (!command || (!mod && isTyping(event.target)) || document.querySelector('dialog[open]')) return;
    event.preventDefault();
    command.run();
  });
}
