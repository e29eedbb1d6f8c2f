// The page: what the suite calls in it is in `window.page`.

const page = (window.page = { token: null, answers: [] });

navigator.serviceWorker.addEventListener("message", ({ data, ports }) => {
    if (data === "token") ports[0].postMessage(page.token);
    else page.answers.push(data);
});

/** Takes the token, and returns when the service worker is in charge. */
page.begin = async (token) => {
    page.token = token;
    const inCharge = new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve));
    await navigator.serviceWorker.register("worker.js");
    if (!navigator.serviceWorker.controller) await inCharge;
};

/** Puts a picture into the page; returns its size, or nothing if it cannot be shown. */
page.show = async (src) => {
    const image = new Image();
    image.src = src;
    document.body.append(image);
    await image.decode().catch(() => {});
    return image.naturalWidth ? [image.naturalWidth, image.naturalHeight] : null;
};

/** Asks across origins; returns what the page may see of the answer. */
page.ask = async (url, { token = page.token, headers = {}, ...options } = {}) => {
    if (token) headers.Authorization = `Bearer ${token}`;
    const answer = await fetch(url, { headers, ...options });
    return { status: answer.status, headers: Object.fromEntries(answer.headers), text: await answer.text() };
};

/** Uploads as matrix-js-sdk does in a browser; returns status, body, and whether its progress was told. */
page.upload = (url, body, type) =>
    new Promise((resolve, reject) => {
        const request = new XMLHttpRequest();
        let progress = false;
        request.upload.onprogress = () => (progress = true);
        request.onload = () => resolve({ status: request.status, text: request.responseText, progress });
        request.onerror = () => reject(new Error("the upload got no answer"));
        request.open("POST", url);
        request.setRequestHeader("Authorization", `Bearer ${page.token}`);
        request.setRequestHeader("Content-Type", type);
        request.send(body);
    });

function happens(target, event) {
    return new Promise((resolve, reject) => {
        target.addEventListener(event, resolve, { once: true });
        const failed = () => reject(new Error(`no ${event}: ${target.error?.message}`));
        target.addEventListener("error", failed, { once: true });
    });
}

/** Opens a video; returns what is known of it before it plays. */
page.open = async (src) => {
    const video = (page.video = document.createElement("video"));
    video.muted = true;
    video.preload = "metadata";
    video.src = src;
    document.body.append(video);
    await happens(video, "loadeddata");
    const { duration, videoWidth, videoHeight, seekable } = video;
    return { duration, size: [videoWidth, videoHeight], seekable: seekable.end(0), greys: greys() };
};

/** Seeks; returns where the video is then, and what it shows. */
page.seek = async (time) => {
    const seeked = happens(page.video, "seeked");
    page.video.currentTime = time;
    await seeked;
    return { time: page.video.currentTime, greys: greys() };
};

/** Plays until the given time; returns where it stops. */
page.play = async (until) => {
    await page.video.play();
    while (page.video.currentTime < until) await happens(page.video, "timeupdate");
    page.video.pause();
    return page.video.currentTime;
};

// The left half of what the video shows, above and below, from 0 for black to 255 for white.
function greys() {
    const canvas = document.createElement("canvas");
    const context = canvas.getContext("2d");
    context.drawImage(page.video, 0, 0, canvas.width, canvas.height);
    const left = canvas.width / 4;
    return [1, 3].map((quarter) => context.getImageData(left, (quarter * canvas.height) / 4, 1, 1).data[0]);
}
