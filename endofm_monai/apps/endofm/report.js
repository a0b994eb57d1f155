// What is clicked on with a `data-frame` brings the video of its `data-task` to that frame.
"use strict";
addEventListener("DOMContentLoaded", () => {
  const stage = document.querySelector(".stage");
  const videos = [...document.querySelectorAll(".stage video")];
  if (!videos.length) return;
  const frames = Number(stage.dataset.frames), fps = Number(stage.dataset.fps);
  const place = document.querySelector(".bar output"), heads = document.querySelectorAll(".lane i");
  let shown = videos[0];

  const frame = () => Math.min(frames - 1, Math.floor(shown.currentTime * fps + 1e-3));
  const tell = () => {
    place.textContent = `frame ${frame()} of ${frames}`;
    heads.forEach((head) => { head.style.left = `${100 * frame() / frames}%`; });
    if (!shown.paused) requestAnimationFrame(tell);
  };
  const seek = (number) => {
    shown.pause();
    shown.currentTime = (Math.max(0, Math.min(frames - 1, number)) + 0.5) / fps;  // the middle of the frame
  };
  const show = (task) => {
    const next = videos.find((video) => video.id === task) ?? shown;
    if (next !== shown) {
      shown.pause();
      next.currentTime = shown.currentTime;
      shown = next;
    }
    videos.forEach((video) => { video.hidden = video !== shown; });
    document.querySelectorAll("[data-show]").forEach((tab) => tab.classList.toggle("on", tab.dataset.show === shown.id));
  };

  videos.forEach((video) => ["play", "seeked", "loadedmetadata"].forEach((event) => video.addEventListener(event, tell)));
  addEventListener("click", ({ target, clientX }) => {
    const { show: tab, step, frame: number, task } = target.closest("button")?.dataset ?? {};
    const lane = target.closest(".lane:not(.axis) > div");
    if (tab) show(tab);
    if (step) seek(frame() + Number(step));
    if (number) {
      show(task);
      seek(Number(number));
      if (!lane) stage.scrollIntoView({ behavior: "smooth" });
    } else if (lane) {
      const { left, width } = lane.getBoundingClientRect();
      seek(Math.floor((clientX - left) / width * frames));
    }
  });
  addEventListener("keydown", (event) => {
    if (event.target.tagName !== "VIDEO" && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
      seek(frame() + (event.key === "ArrowLeft" ? -1 : 1));
    }
  });
});
