import { ago, time } from '../format.ts';
import { texts } from '../strings.ts';

/** A moment, relative to now; the exact time and its zone are in the tooltip. */
export function Time({ at }: { at: string | null | undefined }) {
  if (!at) return <span class="muted">{texts.never}</span>;
  return <time dateTime={at} title={time(at)}>{ago(at)}</time>;
}
