// A program that reads a flag, in the language that the person chooses.
import { useState } from 'preact/hooks';
import { ApiError } from '../api/error.ts';
import { apiUrl, consolePath } from '../base.ts';
import { useLoader } from '../data.ts';
import { LANGUAGES, snippet, type Language, type Programs, type SnippetType } from '../snippets.ts';
import { languageNames, snippetTexts, texts } from '../strings.ts';
import { CopyButton, SelectField } from './controls.tsx';
import { Loaded } from './feedback.tsx';

interface Props {
  apiKey: string;
  flagKey: string;
  type: SnippetType;
  first?: Language;
}

async function readPrograms() {
  const response = await fetch(`${consolePath}programs.json`).catch(() => null);
  if (!response?.ok) throw new ApiError(0, texts.offline);
  return { status: 200, data: (await response.json()) as Programs, etag: undefined };
}

export function Snippets({ apiKey, flagKey, type, first = 'node' }: Props) {
  const [language, setLanguage] = useState<Language>(first);
  return (
    <Loaded from={useLoader('programs', readPrograms)}>
      {(programs) => {
        const program = programs[language];
        const text = () => snippet(program, { url: apiUrl('/').replace(/\/$/, ''), apiKey, flagKey, type });
        return (
          <>
            <SelectField
              label={snippetTexts.language} value={language} onChange={setLanguage}
              options={LANGUAGES.map((name) => [name, languageNames[name]] as const)}
            />
            <pre class="snippet fill" tabIndex={0}>{program.install}</pre>
            <pre class="snippet fill" tabIndex={0}>{text()}</pre>
            <CopyButton text={text}>{snippetTexts.copy}</CopyButton>
          </>
        );
      }}
    </Loaded>
  );
}
