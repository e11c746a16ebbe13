import process from "node:process";

/** The CPU time that this process has used, in microseconds: a busy machine does not add to it. */
export function cpuTime(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}
