/** A clock that stops until a test moves it. */
export function testClock() {
  let time = 1_700_000_000_000;
  return {
    now: () => time,
    pass: (seconds: number) => {
      time += seconds * 1000;
    },
  };
}
