/** Captures what is logged as an error, instead of printing it, until `end` returns it. */
export function captureErrors(): { end(): string } {
  const original = console.error;
  const messages: string[] = [];
  console.error = (...values: unknown[]) => void messages.push(values.map(String).join(" "));
  return {
    end() {
      console.error = original;
      return messages.join("\n");
    },
  };
}

/** Returns what `act` logs as errors, instead of printing it. */
export async function logged(act: () => Promise<void>): Promise<string> {
  const errors = captureErrors();
  try {
    await act();
  } finally {
    errors.end();
  }
  return errors.end();
}
