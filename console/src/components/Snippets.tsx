// A program that reads a flag, in the language that the person chooses.
import { useState } from 'preact/hooks';
import { apiUrl } from '../base.ts';
import { INSTALL, LANGUAGES, snippet, type Language, type SnippetType } from '../snippets.ts';
import { languageNames, snippetTexts } from '../strings.ts';
import { CopyButton, SelectField } from './controls.tsx';

interface Props {
  apiKey: string;
  flagKey: string;
  type: SnippetType;
  first?: Language;
}

export function Snippets({ apiKey, flagKey, type, first = 'node' }: Props) {
  const [language, setLanguage] = useState<Language>(first);
  const text = () => snippet(language, { url: apiUrl('/').replace(/\/$/, ''), apiKey, flagKey, type });
  return (
    <>
      <SelectField
        label={snippetTexts.language} value={language} onChange={setLanguage}
        options={LANGUAGES.map((name) => [name, languageNames[name]] as const)}
      />
      <pre class="snippet fill" tabIndex={0}>{INSTALL[language]}</pre>
      <pre class="snippet fill" tabIndex={0}>{text()}</pre>
      <CopyButton text={text}>{snippetTexts.copy}</CopyButton>
    </>
  );
}
