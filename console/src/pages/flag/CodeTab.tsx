// How an application reads the flag.
import { Snippets } from '../../components/Snippets.tsx';
import { pagePath } from '../../route.ts';
import { href } from '../../router.ts';
import { snippetType } from '../../snippets.ts';
import { snippetTexts } from '../../strings.ts';
import { definitionOf } from './FlagPage.tsx';
import type { TabProps } from './tabs.tsx';

export function CodeTab({ env, flag }: TabProps) {
  const variants = Object.values(definitionOf(flag)?.variants ?? {});
  return (
    <section class="stack">
      <p>
        {snippetTexts.intro} <a href={href(pagePath(env, 'keys'))}>{snippetTexts.toKeys}</a>
      </p>
      <Snippets apiKey={snippetTexts.placeholder} flagKey={flag.key} type={snippetType(variants)} />
    </section>
  );
}
