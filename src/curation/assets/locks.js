// Locks between tabs. Browsers have them on secure connections only; elsewhere, a lease in localStorage takes their place.

import { randomHex, wait } from "./api.js";

const LEASE = 6000;
const RENEW = 2000;
const owner = randomHex(8);

// Takes a lock for as long as the tab lives. Answers whether it was free, now or before the signal.
export function hold(name, signal = null) {
  if (!navigator.locks) return lease(name, signal ?? AbortSignal.abort());
  const options = signal ? { signal } : { ifAvailable: true };
  return new Promise((resolve) => {
    navigator.locks
      .request(name, options, (lock) => {
        resolve(lock !== null);
        return lock && new Promise(() => {});
      })
      .catch(() => resolve(false));
  });
}

// Runs a task in one tab at a time, in the next one when that tab is closed.
export const alone = (name, task) =>
  (navigator.locks ? navigator.locks.request(name, task) : lease(name, new AbortController().signal).then(task));

async function lease(name, signal) {
  const place = `lock ${name}`;
  const read = () => JSON.parse(localStorage.getItem(place) ?? "null");
  const write = () => localStorage.setItem(place, JSON.stringify({ owner, until: Date.now() + LEASE }));
  const isMine = () => read()?.owner === owner;
  for (;;) {
    if (!((read()?.until ?? 0) > Date.now())) {
      write();
      // Two tabs may have written: the last one has it.
      await wait(100);
      if (isMine()) break;
    }
    if (signal.aborted) return false;
    await wait(RENEW, signal);
  }
  setInterval(() => isMine() && write(), RENEW);
  addEventListener("pagehide", () => isMine() && localStorage.removeItem(place));
  return true;
}
