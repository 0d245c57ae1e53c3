// What the page keeps in the browser: IndexedDB, one database for each person and run.

const STORES = {
  outbox: { keyPath: "order", autoIncrement: true }, // verdicts that are not sent yet, in order
  desks: { keyPath: "desk" }, // client ids of tabs
  lists: { keyPath: "key" }, // lists that were handed out, and where one stands
  entries: { keyPath: ["list", "index"] }, // their entries
  undo: { keyPath: ["desk", "number"] }, // what can be undone
  notices: { keyPath: "id" }, // conflicts and refusals that nobody has dealt with
  bulk: { keyPath: "id" }, // the last bulk judgements
};

const settled = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

export class Store {
  static async open(name) {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => {
      for (const [store, options] of Object.entries(STORES)) request.result.createObjectStore(store, options);
    };
    const database = await settled(request);
    database.onversionchange = () => database.close();
    return new Store(name, database);
  }

  constructor(name, database) {
    this.name = name;
    this.database = database;
  }

  // Writes in one transaction, which is under way when this returns. The promise is fulfilled when it is complete. It does
  // not wait for the disk: a tab that is closed meanwhile would take the transaction along.
  write(stores, change) {
    const transaction = this.database.transaction(stores, "readwrite", { durability: "relaxed" });
    const done = new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error ?? new Error("the browser could not store data"));
    });
    change(Object.fromEntries(stores.map((name) => [name, transaction.objectStore(name)])));
    transaction.commit();
    return done;
  }

  // Changes one record if it is there.
  change(store, key, change) {
    const place = this.database.transaction(store, "readwrite").objectStore(store);
    const request = place.get(key);
    request.onsuccess = () => request.result && place.put(change(request.result));
  }

  #read(store) {
    return this.database.transaction(store, "readonly").objectStore(store);
  }

  get(store, key) {
    return settled(this.#read(store).get(key));
  }

  all(store, range, count) {
    return settled(this.#read(store).getAll(range, count));
  }

  count(store, range) {
    return settled(this.#read(store).count(range));
  }

  // Up to `count` records with the highest keys of a range, highest first.
  last(store, range, count) {
    return new Promise((resolve, reject) => {
      const found = [];
      const request = this.#read(store).openCursor(range, "prev");
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        const cursor = request.result;
        if (!cursor || found.length >= count) return resolve(found);
        found.push(cursor.value);
        cursor.continue();
      };
    });
  }
}

// All keys that begin with `first`.
export const beginning = (...first) => IDBKeyRange.bound(first, [...first, []]);
