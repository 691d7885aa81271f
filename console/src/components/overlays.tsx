// Dialogs, side panels and messages, which lie over a page.
import { effect, signal } from '@preact/signals-core';
import type { ComponentChildren } from 'preact';
import { useEffect, useId, useLayoutEffect, useRef } from 'preact/hooks';
import { isProduction } from '../config.ts';
import { address } from '../router.ts';
import { useCommands } from '../shortcuts.ts';
import { texts } from '../strings.ts';
import { Button, CurlButton } from './controls.tsx';

interface DialogProps {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  /** The buttons before and after Cancel. */
  actions?: ComponentChildren;
  more?: ComponentChildren;
  /** Enter must not confirm it by accident: Cancel has the focus. */
  danger?: boolean | undefined;
  class?: string;
}

/** Returns the focus to where it is now. */
function focusReturner(): () => void {
  const before = document.activeElement;
  return () => {
    if (before instanceof HTMLElement && before.isConnected) before.focus();
  };
}

/** A modal dialog. The browser keeps the focus inside; after the dialog, the focus returns to where it was. */
export function Dialog({ title, onClose, children, actions, more, danger, class: extra = '' }: DialogProps) {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  // A layout effect runs before the next key press, which the dialog must receive.
  useLayoutEffect(() => {
    const returnFocus = focusReturner();
    ref.current?.showModal();
    return returnFocus;
  }, []);
  return (
    <dialog ref={ref} class={`dialog ${extra}`} aria-labelledby={id} onCancel={(event) => { event.preventDefault(); onClose(); }}>
      <h2 id={id}>{title}</h2>
      <div class="dialog-body">{children}</div>
      <div class="dialog-actions">
        {actions}
        <Button onClick={onClose} autofocus={danger}>{texts.cancel}</Button>
        {more}
      </div>
    </dialog>
  );
}

/** A panel at the side. The page stays usable; Escape closes the panel, and the focus returns. */
export function SidePanel({ title, onClose, children }: { title: string; onClose: () => void; children: ComponentChildren }) {
  const ref = useRef<HTMLElement>(null);
  const id = useId();
  useEffect(() => {
    const returnFocus = focusReturner();
    (ref.current?.querySelector<HTMLElement>('input, select, textarea') ?? ref.current)?.focus();
    return returnFocus;
  }, []);
  return (
    <aside
      ref={ref}
      class="panel"
      aria-labelledby={id}
      tabIndex={-1}
      onKeyDown={(event) => {
        if (event.key === 'Escape') onClose();
      }}
    >
      <div class="panel-head">
        <h2 id={id}>{title}</h2>
        <Button tone="quiet" onClick={onClose}>{texts.close}</Button>
      </div>
      {children}
    </aside>
  );
}

export interface Confirmation {
  /** The environment that changes; the question says if it is production. */
  env?: string | undefined;
  title: string;
  /** What happens, in sentences. */
  body: ComponentChildren;
  /** The verb on the button. */
  action: string;
  danger?: boolean;
  curl?: () => string;
  run: () => unknown;
}

const confirmation = signal<Confirmation | null>(null);

// A question belongs to the page that asks it.
effect(() => {
  void address.value;
  confirmation.value = null;
});

/** Asks before a change, in any environment. */
export function confirmThen(question: Confirmation): void {
  confirmation.value = question;
}

/** Asks before a change of production; elsewhere, the change is made at once. */
export function confirmProduction(question: Confirmation & { env: string }): void {
  if (isProduction(question.env)) confirmThen(question);
  else question.run();
}

export function ConfirmationDialog() {
  const question = confirmation.value;
  if (!question) return null;
  const close = () => {
    confirmation.value = null;
  };
  const confirm = async () => {
    close();
    await question.run();
    // What had the focus may be gone by now, such as the form that started a ramp.
    setTimeout(() => {
      if (document.activeElement === document.body) document.querySelector('h1')?.focus({ preventScroll: true });
    });
  };
  return (
    <Dialog
      title={question.title}
      danger={question.danger}
      onClose={close}
      actions={<Button tone={question.danger ? 'danger' : 'primary'} autofocus={!question.danger} onClick={() => void confirm()}>{question.action}</Button>}
      more={question.curl && <CurlButton command={question.curl} />}
    >
      {question.env !== undefined && isProduction(question.env) && <p><strong>{texts.confirmProduction}</strong></p>}
      {question.body}
    </Dialog>
  );
}

interface Message {
  id: number;
  text: string;
  tone: 'good' | 'bad';
  undo?: (() => Promise<unknown>) | undefined;
}

const messages = signal<Message[]>([]);
let nextId = 1;

/**
 * Shows a message: an error until it is closed, one with Undo for a minute, any other for ten seconds. The next message
 * of the same kind replaces it: only the last change has Undo; earlier ones can be undone in the history.
 */
export function toast(text: string, options: Partial<Pick<Message, 'tone' | 'undo'>> = {}): void {
  const id = nextId++;
  const { tone = 'good', undo } = options;
  const others = messages.value.filter((message) => message.tone !== tone || !message.undo !== !undo);
  messages.value = [...others, { id, text, tone, undo }];
  if (tone !== 'bad') setTimeout(() => dismiss(id), undo ? 60_000 : 10_000);
}

function dismiss(id: number): void {
  messages.value = messages.value.filter((message) => message.id !== id);
}

function undoMessage({ id, undo }: Message): void {
  dismiss(id);
  void undo?.();
}

/** Messages come after the end of the page. While the page is longer than the window, they stay at the window's bottom. */
export function Toasts() {
  const undoable = messages.value.filter((message) => message.undo);
  useCommands(undoable.map((message) => ({ id: `undo.${message.id}`, title: `${texts.undo}: ${message.text}`, run: () => undoMessage(message) })), [messages.value]);
  return (
    <div class="toasts" role="status" aria-live="polite">
      {messages.value.map((message) => (
        <div key={message.id} class={`toast ${message.tone}`}>
          <span>{message.text}</span>
          {message.undo && <Button tone="quiet" onClick={() => undoMessage(message)}>{texts.undo}</Button>}
          <Button tone="quiet" label={`${texts.close}: ${message.text}`} onClick={() => dismiss(message.id)}>×</Button>
        </div>
      ))}
    </div>
  );
}
