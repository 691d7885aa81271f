// Data that several tabs of a flag need besides the flag. The requests are shared.
import { useResource } from '../../data.ts';
import { whyNotEdit } from '../../session.ts';
import { flagTexts } from '../../strings.ts';
import { FLAG, flagParams } from './save.tsx';

const RUNNING = ['pending', 'baking', 'holding', 'paused'];

/** Whether a ramp runs, and whether one was rolled back, so that the API accepts no change but switching off. */
export function useRampState(env: string, flagKey: string): { running: boolean; blocks: boolean } {
  const ramp = useResource(`${FLAG}/ramp`, flagParams(env, flagKey)).data.value;
  return {
    running: ramp !== undefined && RUNNING.includes(ramp.state),
    blocks: ramp?.state === 'rolledBack' && ramp.acknowledgedBy === null,
  };
}

/** Why the flag cannot be changed, or undefined. */
export function useWhyNot(env: string, flagKey: string): string | undefined {
  const { blocks } = useRampState(env, flagKey);
  return whyNotEdit(env) ?? (blocks ? flagTexts.rolledBack : undefined);
}

/** How often the flag was evaluated today; empty while unknown. */
export function useToday(env: string, flagKey: string): { sentence: string; lastEvaluatedAt: string | null | undefined } {
  const usage = useResource(`${FLAG}/usage`, { ...flagParams(env, flagKey), days: 1 }).data.value;
  return { sentence: usage ? flagTexts.today(usage.evaluations) : '', lastEvaluatedAt: usage?.lastEvaluatedAt };
}
