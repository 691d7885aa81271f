// What a flag with variants shows in place of the rollout: its rules as sentences.
import { SplitBar } from '../../components/SplitBar.tsx';
import { flagPath } from '../../route.ts';
import { href } from '../../router.ts';
import { groupSentence, outcomeSentence, parseRules, type Outcome } from '../../rules.ts';
import { flagTexts, rolloutTexts, rulesTexts } from '../../strings.ts';
import { definitionOf } from './FlagPage.tsx';
import type { TabProps } from './tabs.tsx';

export function TypedRollout({ env, flag }: TabProps) {
  const definition = definitionOf(flag);
  const form = parseRules(definition?.targeting as never);
  const line = (when: string, then: Outcome | undefined) => (
    <li>
      <span>{when} → <strong>{outcomeSentence(then, definition?.defaultVariant)}</strong></span>
      {then?.kind === 'split' && <SplitBar buckets={then.buckets} />}
    </li>
  );
  return (
    <section class="stack">
      <p>{rolloutTexts.typed} {rulesTexts.rulesHint}</p>
      {form && (
        <ul class="audit fill">
          {form.rules.map(({ when, then }) => line(`${rulesTexts.if} ${groupSentence(when)}`, then))}
          {line(form.rules.length > 0 ? rulesTexts.otherwise : rolloutTexts.everyone, form.otherwise)}
        </ul>
      )}
      <p class="row">
        <a href={href(flagPath(env, flag.key, { tab: 'rules' }))}>{rolloutTexts.toRules}</a>
        <a href={href(flagPath(env, flag.key, { tab: 'ramp' }))}>{flagTexts.toRamp}</a>
      </p>
    </section>
  );
}
