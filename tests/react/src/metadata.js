import { z } from "zod";

const tokens = z.number().optional();

// What a message's metadata tells: any of it may be missing.
export const metadata = z.strictObject({
  model: z.string().optional(),
  responseId: z.string().optional(),
  rawFinishReason: z.string().optional(),
  usage: z
    .strictObject({
      inputTokens: tokens,
      inputTokenDetails: z.strictObject({ cacheReadTokens: tokens, cacheWriteTokens: tokens }).optional(),
      outputTokens: tokens,
      outputTokenDetails: z.strictObject({ reasoningTokens: tokens }).optional(),
      totalTokens: tokens,
    })
    .optional(),
  error: z.strictObject({ code: z.string(), recoverable: z.boolean() }).optional(),
});
