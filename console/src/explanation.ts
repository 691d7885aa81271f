// The steps of an explanation as sentences.
import type { ExplanationStep } from './api/explanation.ts';
import { explainTexts } from './strings.ts';

const json = (value: unknown): string => JSON.stringify(value) ?? '';
const name = (value: unknown): string => (typeof value === 'string' ? value : json(value));

export function stepSentence(step: ExplanationStep): string {
  switch (step.step) {
    case 'archived':
      return explainTexts.archived(step.result);
    case 'serverOnly':
      return explainTexts.serverOnly(step.result);
    case 'enabled':
      return explainTexts.enabled(step.result);
    case 'readable':
      return step.reason;
    case 'override':
      return explainTexts.override(step.variant ?? step.result);
    case 'rollout':
      return explainTexts.rollout(step.percent);
    case 'bucket':
      return explainTexts.bucket(step.bucket, step.percent);
    case 'omitted':
      return explainTexts.omitted(step.operations);
    case 'default':
      return explainTexts.default(step.variant);
    case 'operation': {
      const operands = step.operands.map((operand) => ('value' in operand ? json(operand.value) : explainTexts.skipped)).join(', ');
      const limits = step.fractional?.variants.map(({ variant, limit }) => explainTexts.below(name(variant), limit)).join(', ') ?? '';
      const how = step.fractional ? ` (${explainTexts.fractional(step.fractional.bucket, step.fractional.total, limits)})` : '';
      return `${step.operator}: ${operands} → ${step.error ?? json(step.result)}${how}`;
    }
  }
}
