// Renders a component again when a signal that it has read changes. The package @preact/signals does more, such as
// writing signals into DOM attributes, which the console does not use and would have to send.
import { effect } from '@preact/signals-core';
import { options, type Component, type VNode } from 'preact';

/** What hooks are built on, by the names in Preact's bundle. */
interface Internals {
  /** Before a component renders. */
  __r?: (vnode: VNode & { __c: Component }) => void;
}

export function renderOnSignals(): void {
  const internals = options as Internals;
  const before = internals.__r;
  internals.__r = (vnode) => {
    before?.(vnode);
    if (!vnode.__c.componentWillUnmount) observe(vnode.__c);
  };
}

/**
 * Each rendering runs in an effect, which therefore depends on the signals that are read. When one of them changes, the
 * effect runs again and requests the next rendering.
 */
function observe(component: Component): void {
  const { render } = component;
  let stop = () => {};
  component.componentWillUnmount = () => stop();
  component.render = (...values) => {
    let result: ReturnType<typeof render>;
    let rendered = false;
    stop();
    stop = effect(() => {
      if (rendered) component.setState({});
      else result = render.apply(component, values);
      rendered = true;
    });
    return result;
  };
}
