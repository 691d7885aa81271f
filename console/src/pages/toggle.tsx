// Turning a flag on or off, with a question that names the environment and what is affected.
import { Button } from '../components/controls.tsx';
import { confirmThen } from '../components/overlays.tsx';
import { evaluationsSentence, stateSentence, type FlagSummary } from '../sentences.ts';
import { whyNotEdit } from '../session.ts';
import { toggleTexts } from '../strings.ts';
import { attempt, changeCurl, changeFlag } from './flag/save.tsx';

interface Props {
  env: string;
  flagKey: string;
  summary: FlagSummary;
  etag: string;
  /** Text of recent use, or the number of evaluations in this hour of the clock and the one before. */
  use: string | number | null;
  quiet?: boolean;
  /** Why the button is disabled. If absent, the role of the signed-in user decides. */
  why?: string | undefined;
}

export function toggleFlag({ env, flagKey, summary, etag, use }: Props): void {
  const enabled = !summary.enabled;
  const change = { enabled };
  confirmThen({
    env,
    title: toggleTexts.title(flagKey, enabled, env),
    body: (
      <>
        <p>{enabled ? toggleTexts.effectOn(stateSentence({ ...summary, enabled })) : toggleTexts.effectOff(summary.variants !== null)}</p>
        <p>{typeof use === 'string' ? use : evaluationsSentence(use)}</p>
      </>
    ),
    action: enabled ? toggleTexts.on : toggleTexts.off,
    danger: !enabled,
    curl: () => changeCurl(env, flagKey, change, etag),
    run: () => attempt(() => changeFlag(env, flagKey, change, { enabled: !enabled }, etag, toggleTexts.done(flagKey, enabled, env))),
  });
}

export function ToggleButton(props: Props) {
  const { env, flagKey, summary, quiet, why = whyNotEdit(env) } = props;
  const verb = summary.enabled ? toggleTexts.off : toggleTexts.on;
  return (
    <Button tone={quiet ? 'quiet' : 'plain'} label={`${verb}: ${flagKey}`} disabledBecause={why} onClick={() => toggleFlag(props)}>
      {verb}
    </Button>
  );
}
