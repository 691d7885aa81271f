// Changes that are not saved yet survive another page, a reload and a sign-in, in this tab.
import { useState } from 'preact/hooks';
import { parseJson } from './api/json.ts';

/** A value like that of `useState`, or null; null removes it. */
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
