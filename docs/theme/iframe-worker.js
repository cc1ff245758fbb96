// The search of the theme runs in a worker. Browsers refuse workers to pages that are opened from the disk,
// so a hidden frame takes the place of the worker there. The theme looks for a script of this name.
'use strict';
if (location.protocol === 'file:') {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement('iframe');
      frame.hidden = true;
      frame.srcdoc = `<script src="${address}"></script>`;
      this.ready = new Promise(resolve => frame.addEventListener('load', () => {
        const inside = frame.contentWindow;
        inside.postMessage = data => this.dispatchEvent(new MessageEvent('message', {data}));
        resolve(inside);
      }));
      document.body.append(frame);
    }

    postMessage(data) {
      this.ready.then(inside => inside.dispatchEvent(new inside.MessageEvent('message', {data})));
    }
  };
}
