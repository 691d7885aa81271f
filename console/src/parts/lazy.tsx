// Parts of the console that are loaded when they are first shown, each from a file of its own.
//
// A part is a module in this folder that exports components. It imports `main.tsx`, although it needs nothing of it: so
// esbuild knows that the part is never loaded without the start of the console, and leaves what both use in app.js.
import type { ComponentChildren, ComponentType } from 'preact';
import { ApiError } from '../api/error.ts';
import { Loaded } from '../components/feedback.tsx';
import { useLoader } from '../data.ts';
import { texts } from '../strings.ts';

const loaders = {
  rules: () => import('./rules.ts'),
  changes: () => import('./changes.ts'),
  environments: () => import('./environments.ts'),
};
type Parts = { [N in keyof typeof loaders]: Awaited<ReturnType<(typeof loaders)[N]>> };
type Props<C> = C extends (props: infer P) => unknown ? P : never;

/** A component of a part, which shows itself once the part is loaded. */
export function lazy<N extends keyof Parts, C extends keyof Parts[N]>(name: N, component: C): (props: Props<Parts[N][C]>) => ComponentChildren {
  const read = async () => {
    try {
      return { status: 200, data: (await loaders[name]()) as Parts[N], etag: undefined };
    } catch {
      throw new ApiError(0, texts.partMissing);
    }
  };
  return (props) => {
    const from = useLoader(name, read);
    return (
      <Loaded from={from}>
        {(part) => {
          const Component = part[component] as ComponentType<object>;
          return <Component {...(props as object)} />;
        }}
      </Loaded>
    );
  };
}
