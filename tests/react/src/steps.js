// An assistant's message has a step for each answer that it was made of.
export function steps(parts) {
  const all = [[]];
  for (const part of parts) {
    if (part.type === "step-start") all.push([]);
    else all.at(-1).push(part);
  }
  return all.filter((step) => step.length > 0);
}
