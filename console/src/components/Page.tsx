// A page: its title, which gets the focus when the page opens, its actions and its contents.
import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { texts } from '../strings.ts';

let first = true;

export function Page({ title, actions, children }: { title: string; actions?: ComponentChildren; children: ComponentChildren }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} · ${texts.product}`;
  }, [title]);
  useEffect(() => {
    // The browser announces the first page itself.
    if (!first) heading.current?.focus({ preventScroll: true });
    first = false;
  }, []);
  return (
    <>
      <div class="head">
        <h1 ref={heading} tabIndex={-1}>{title}</h1>
        {actions && <div class="row">{actions}</div>}
      </div>
      {children}
    </>
  );
}
