// Videos play where they stand and make no sound, so that phones start them by themselves. Whoever asked the system
// for less motion starts a video when they want to: what would play by itself waits.
() => {
  const quiet = (video) => {
    video.muted = video.defaultMuted = true;
    video.playsInline = true;
    video.setAttribute("muted", "");
    video.setAttribute("playsinline", "");
  };
  const found = (node) => (node instanceof HTMLVideoElement ? [node] : node.querySelectorAll?.("video") ?? []);
  found(document).forEach(quiet);
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes) for (const node of addedNodes) found(node).forEach(quiet);
  }).observe(document.body, { childList: true, subtree: true });
  // The page's own code sets its videos up again when they get something to play.
  for (const event of ["loadstart", "loadedmetadata"]) {
    document.addEventListener(event, ({ target }) => target instanceof HTMLVideoElement && quiet(target), true);
  }

  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  const held = new WeakMap(); // video -> the source that was held once; pressing play is the second time
  document.addEventListener(
    "play",
    ({ target: video }) => {
      if (!calm.matches || !(video instanceof HTMLVideoElement) || !video.autoplay) return;
      if (held.get(video) === video.currentSrc) return;
      held.set(video, video.currentSrc);
      video.pause();
    },
    true,
  );
}
