// Whoever asked the system for less motion starts a video when they want to: what would play by itself waits.
() => {
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
