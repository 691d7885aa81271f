// Data that several tabs of a flag need besides the flag. The requests are shared.
import { useResource } from '../../data.ts';
import { whyNotEdit } from '../../session.ts';
import { flagTexts } from '../../strings.ts';
import { FLAG, flagParams } from './save.tsx';

const RUNNING = ['pending', 'baking', 'holding', 'paused'];

/**
 * Whether a ramp runs, and whether most changes of the flag are rejected because an alarm rolled its ramp back and nobody
 * has acknowledged that. `every` as for `useResource`.
 */
export function useRampState(env: string, flagKey: string, every?: number): { running: boolean; blocks: boolean } {
  const ramp = useResource(`${FLAG}/ramp`, flagParams(env, flagKey), every).data.value;
  return {
    running: ramp !== undefined && RUNNING.includes(ramp.state),
    blocks: ramp?.state === 'rolledBack' && ramp.acknowledgedBy === null,
  };
}

/** Why the flag cannot be edited, or undefined. */
export function useWhyNotEdit(env: string, flagKey: string): string | undefined {
  const { blocks } = useRampState(env, flagKey);
  return whyNotEdit(env) ?? (blocks ? flagTexts.rolledBack : undefined);
}

/** A sentence about today's evaluations of the flag, and the time of the last one; empty while unknown. */
export function useEvaluations(env: string, flagKey: string): { sentence: string; lastEvaluatedAt: string | null | undefined } {
  const usage = useResource(`${FLAG}/usage`, { ...flagParams(env, flagKey), days: 1 }).data.value;
  return { sentence: usage ? flagTexts.today(usage.evaluations) : '', lastEvaluatedAt: usage?.lastEvaluatedAt };
}
