// What a flag with variants shows in place of the rollout.
import { SplitBar } from '../../components/SplitBar.tsx';
import { flagPath } from '../../route.ts';
import { href } from '../../router.ts';
import { parseRules } from '../../rules.ts';
import { rolloutTexts } from '../../strings.ts';
import { definitionOf } from './FlagPage.tsx';
import type { TabProps } from './tabs.tsx';

export function TypedRollout({ env, flag }: TabProps) {
  const form = parseRules(definitionOf(flag)?.targeting as never);
  const split = form?.otherwise?.kind === 'split' ? form.otherwise.buckets : null;
  return (
    <section class="stack">
      <p>{rolloutTexts.typed}</p>
      {split && <SplitBar slices={split.map(({ variant, weight = 1 }) => ({ label: variant, weight }))} />}
      <p class="row">
        <a href={href(flagPath(env, flag.key, { tab: 'rules' }))}>{rolloutTexts.toRules}</a>
        <a href={href(flagPath(env, flag.key, { tab: 'ramp' }))}>{rolloutTexts.ramp}</a>
      </p>
    </section>
  );
}
