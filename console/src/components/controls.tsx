// Buttons, links and form fields.
import type { ComponentChildren } from 'preact';
import { useId, useState } from 'preact/hooks';
import { texts } from '../strings.ts';

type Tone = 'plain' | 'primary' | 'danger' | 'quiet';

interface ButtonProps {
  children: ComponentChildren;
  onClick?: (event: MouseEvent) => void;
  tone?: Tone;
  type?: 'button' | 'submit';
  /** Why the button does nothing; it stays focusable, so that everyone can find out. */
  disabledBecause?: string | undefined;
  busy?: boolean;
  label?: string;
  pressed?: boolean;
  /** In a dialog: it has the focus first. */
  autofocus?: boolean | undefined;
}

export function Button({ children, onClick, tone = 'plain', type = 'button', disabledBecause, busy = false, label, pressed, autofocus }: ButtonProps) {
  const off = disabledBecause !== undefined || busy;
  return (
    <button
      type={type}
      class={`button ${tone}`}
      aria-disabled={off ? 'true' : undefined}
      aria-busy={busy ? 'true' : undefined}
      aria-label={label}
      aria-pressed={pressed}
      autofocus={autofocus}
      title={disabledBecause}
      onClick={(event) => {
        if (off) event.preventDefault();
        else onClick?.(event);
      }}
    >
      {children}
    </button>
  );
}

/** Adds something to a form, and moves the focus to its first input. */
export function AddButton({ onClick, ...props }: ButtonProps & { onClick: () => void }) {
  return (
    <Button
      {...props}
      onClick={(event) => {
        const parent = (event.currentTarget as Element).closest('fieldset, form, section')!;
        const inputs = () => [...parent.querySelectorAll('input')];
        const before = inputs();
        onClick();
        // Once it is rendered.
        setTimeout(() => inputs().find((input) => !before.includes(input))?.focus());
      }}
    />
  );
}

interface FieldProps {
  label: string;
  hint?: ComponentChildren;
  /** What the API or the form says about the value. */
  errors?: string[] | undefined;
  children: (props: { id: string; 'aria-describedby': string | undefined; 'aria-invalid': 'true' | undefined }) => ComponentChildren;
  class?: string | undefined;
}

/** A label, a control, a hint, and errors that a screen reader reads with the control. */
export function Field({ label, hint, errors = [], children, class: extra = '' }: FieldProps) {
  const id = useId();
  const invalid = errors.length > 0;
  const described = [hint ? `${id}-hint` : '', invalid ? `${id}-error` : ''].filter(Boolean).join(' ');
  return (
    <div class={`field ${extra}`}>
      <label for={id}>{label}</label>
      {children({ id, 'aria-describedby': described || undefined, 'aria-invalid': invalid ? 'true' : undefined })}
      {hint && <div class="hint" id={`${id}-hint`}>{hint}</div>}
      <Errors id={`${id}-error`} errors={errors} />
    </div>
  );
}

/** What is wrong with one or several fields, at their place. */
export function Errors({ errors, id }: { errors: readonly string[]; id?: string }) {
  return errors.length === 0 ? null : <div class="error-text" id={id} role="alert">{errors.join('\n')}</div>;
}

interface TextFieldProps extends Omit<FieldProps, 'children'> {
  value: string;
  onInput: (value: string) => void;
  type?: 'text' | 'search' | 'password' | 'number' | 'datetime-local';
  rows?: number;
  inputMode?: 'numeric' | 'text';
  spellcheck?: boolean;
}

/** A field of one line, or of several with `rows`. */
export function TextField({ value, onInput, type = 'text', rows, label, hint, errors, class: extra, ...rest }: TextFieldProps) {
  const read = (event: { currentTarget: HTMLInputElement | HTMLTextAreaElement }) => onInput(event.currentTarget.value);
  return (
    <Field label={label} hint={hint} errors={errors} class={extra}>
      {(props) => rows === undefined
        ? <input {...props} {...rest} type={type as 'text'} value={value} onInput={read} autocomplete="off" />
        : <textarea {...props} {...rest} rows={rows} value={value} onInput={read} />}
    </Field>
  );
}

/** A value, with its text if that differs. */
export type Option<T extends string> = T | readonly [T, string];

interface SelectProps<T extends string> extends Omit<FieldProps, 'children'> {
  value: T;
  options: readonly Option<T>[];
  onChange: (value: T) => void;
}

export function SelectField<T extends string>({ value, options, onChange, ...field }: SelectProps<T>) {
  return <Field {...field}>{(props) => <Select {...props} value={value} options={options} onChange={onChange} />}</Field>;
}

interface BareSelect<T extends string> {
  value: T;
  options: readonly Option<T>[];
  onChange: (value: T) => void;
  id?: string;
  label?: string;
}

export function Select<T extends string>({ value, options, onChange, label, ...rest }: BareSelect<T>) {
  return (
    <select {...rest} aria-label={label} value={value} onChange={(event) => onChange(event.currentTarget.value as T)}>
      {options.map((option) => {
        const [key, text] = typeof option === 'string' ? [option, option] : option;
        return <option key={key} value={key}>{text}</option>;
      })}
    </select>
  );
}

interface CheckProps {
  label: ComponentChildren;
  checked: boolean;
  onChange: (checked: boolean) => void;
}

export function Check({ label, checked, onChange }: CheckProps) {
  return (
    <label class="check">
      <input type="checkbox" checked={checked} onChange={(event) => onChange(event.currentTarget.checked)} /> {label}
    </label>
  );
}

/** Copies a text, such as a command for a shell. */
export function CopyButton({ text, children = texts.copy }: { text: () => string; children?: string }) {
  const [result, setResult] = useState<string>();
  return (
    <Button
      tone="quiet"
      onClick={async () => {
        try {
          // Without HTTPS, a page has no clipboard except on localhost.
          await navigator.clipboard.writeText(text());
          setResult(texts.copied);
          setTimeout(setResult, 2_000);
        } catch {
          setResult(texts.noCopy);
        }
      }}
    >
      <span aria-live="polite">{result ?? children}</span>
    </Button>
  );
}

/** The request of an action, as a command. */
export function CurlButton({ command }: { command: () => string }) {
  return <CopyButton text={command}>{texts.curl}</CopyButton>;
}

/** A word with a colour; the word alone says everything. */
export function Tag({ tone = 'neutral', children, title }: { tone?: 'neutral' | 'good' | 'warn' | 'bad' | 'accent'; children: ComponentChildren; title?: string }) {
  return <span class={`tag ${tone}`} title={title}>{children}</span>;
}
