// A desk is what a tab continues after it was closed: its client id, its lists and its undo stack. Each open tab has a desk
// of its own, which a Web Lock guards.

import { post, randomHex } from "./api.js";
import { hold } from "./locks.js";

const MOST = 50;
// Time for a tab that was closed to give its desk free, in milliseconds. An open tab says at once that it has the desk.
const PATIENCE = 5000;
const RENEW = 20_000;

export class Desk {
  static async take(store) {
    const preferred = Number(sessionStorage.getItem("desk")) || 1;
    const numbers = [preferred, ...Array.from({ length: MOST }, (_, index) => index + 1)];
    for (const [index, number] of numbers.entries()) {
      const name = `${store.name}/desk/${number}`;
      if (!(await hold(name)) && (index > 0 || !(await inherit(store, name, number)))) continue;
      sessionStorage.setItem("desk", number);
      const known = await store.get("desks", number);
      const client = known?.client ?? randomHex(8);
      if (!known) await store.write(["desks"], ({ desks }) => desks.put({ desk: number, client }));
      return new Desk(store, number, client);
    }
    throw new Error("too many tabs are open");
  }

  constructor(store, number, client) {
    this.number = number;
    this.client = client;
    const channel = asking(store);
    channel.onmessage = ({ data }) => data.wanted === number && channel.postMessage({ held: number });
    // The server gives this tab's pictures to others when the tab is closed, or silent for a minute.
    addEventListener("pagehide", () => navigator.sendBeacon(`/api/clients/${client}/closed`));
    addEventListener("pageshow", (event) => event.persisted && location.reload());
    setInterval(() => post(`/api/clients/${client}/alive`).catch(() => {}), RENEW);
  }
}

const asking = (store) => new BroadcastChannel(`${store.name}/desks`);

// Waits for the desk of a tab that was closed. Answers false if the tab is open.
async function inherit(store, name, number) {
  const stop = new AbortController();
  const channel = asking(store);
  channel.onmessage = ({ data }) => data.held === number && stop.abort();
  channel.postMessage({ wanted: number });
  const isHeld = await hold(name, AbortSignal.any([stop.signal, AbortSignal.timeout(PATIENCE)]));
  channel.close();
  return isHeld;
}
