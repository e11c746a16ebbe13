/** Captures what is logged as an error, instead of printing it, until `end` returns it. */
export function captureErrors(): { end(): string } {
  const original = console.error;
  let text = "";
  console.error = (...args: unknown[]) => {
    text += `${args.map(String).join(" ")}\n`;
  };
  return {
    end() {
      console.error = original;
      return text;
    },
  };
}
