// The response of `POST /api/admin/flags/{flagKey}/explain`.

export type ExplanationStep =
  | { step: 'archived' | 'serverOnly' | 'enabled'; result: boolean }
  // Only for unreadable data; says why it cannot be read.
  | { step: 'readable'; reason: string }
  | { step: 'override'; result: string | null; variant?: string }
  | { step: 'rollout'; percent: number; result: boolean }
  | { step: 'bucket'; bucket: number | null; percent: number; result: boolean | null }
  | {
    step: 'operation';
    evaluator?: string;
    pointer: string;
    operator: string;
    depth: number;
    operands: ({ value: unknown } | { skipped: true })[];
    result?: unknown;
    error?: string;
    fractional?: { bucket: number | null; total: number; variants: { variant: unknown; limit: number }[] };
  }
  | { step: 'omitted'; operations: number }
  | { step: 'default'; variant: string | null };

export interface Explanation {
  value: unknown;
  variant: string | null;
  reason: string;
  error: { code: string; message: string } | null;
  path: ExplanationStep[];
}
