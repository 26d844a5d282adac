"""Commands of distillation: their options and what they print."""
