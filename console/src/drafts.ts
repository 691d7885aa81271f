// Keeps unsaved changes in this browser tab while the user opens other pages, reloads or signs in.
import { useState } from 'preact/hooks';
import { parseJson } from './api/json.ts';

/** Like `useState`, with the value kept in sessionStorage: null without a draft. Setting null deletes the draft. */
export function useDraft<T>(name: string): [T | null, (value: T | null) => void] {
  const key = `pennon.draft ${name}`;
  const [value, setValue] = useState<T | null>(() => {
    const text = sessionStorage.getItem(key);
    return text === null ? null : (parseJson(text) as T);
  });
  return [value, (next) => {
    if (next === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, JSON.stringify(next));
    setValue(next);
  }];
}
