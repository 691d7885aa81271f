// The command palette (Ctrl/⌘ K) and the list of shortcuts (?).

export function Palette() {
  return null;
}
