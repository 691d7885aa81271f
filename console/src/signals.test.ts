import assert from 'node:assert/strict';
import { test } from 'node:test';
import { signal } from '@preact/signals-core';
import { options, type Component, type ComponentChildren } from 'preact';
import { renderOnSignals } from './signals.ts';

renderOnSignals();

/** As Preact calls it, without a browser; `requests` counts how often the component asked to be rendered again. */
function componentOf(read: () => ComponentChildren) {
  let requests = 0;
  const component = { render: read, setState: () => { requests += 1; } } as unknown as Component;
  return {
    component,
    requests: () => requests,
    render() {
      (options as { __r?: (vnode: unknown) => void }).__r?.({ __c: component });
      return component.render(component.props, component.state);
    },
    unmount: () => component.componentWillUnmount?.(),
  };
}

test('a component renders again when a signal of its last rendering changes', () => {
  const name = signal('first');
  const other = signal('other');
  const { render, requests } = componentOf(() => (name.value === 'first' ? name.value : other.value));
  assert.equal(render(), 'first');
  other.value = 'not read yet';
  assert.equal(requests(), 0);
  name.value = 'second';
  assert.equal(requests(), 1);
  assert.equal(render(), 'not read yet');
  other.value = 'read';
  assert.equal(requests(), 2);
});

test('one rendering is requested for several changes, and a component is observed once', () => {
  const name = signal(1);
  const { component, render, requests } = componentOf(() => name.value);
  render();
  const observed = component.render;
  render();
  assert.equal(component.render, observed);
  name.value = 2;
  name.value = 3;
  assert.equal(requests(), 1);
  assert.equal(render(), 3);
});

test('a component that is gone or that failed is not rendered again', () => {
  const name = signal('fine');
  const gone = componentOf(() => name.value);
  gone.render();
  gone.unmount();
  const failed = componentOf(() => {
    throw new Error(name.value);
  });
  assert.throws(failed.render, /fine/);
  name.value = 'changed';
  assert.equal(gone.requests() + failed.requests(), 0);
});
