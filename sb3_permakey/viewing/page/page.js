"use strict";

const OWN = "";  // the game's value where it is an environment of the user's own
const element = (id) => document.getElementById(id);
const sides = [...document.querySelectorAll(".side")];
const held = new Set(), tapped = new Set();  // keys that are down, and keys that went down since the last step
let choices, session = null, playing = false, asked = Promise.resolve();

function make(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function tell(sentence) {
  element("error").hidden = !sentence;
  element("error").textContent = sentence;
}

// One request after another, so that answers come in the order of the questions.
function ask(what, form) {
  const answer = asked.then(async () => {
    let response;
    try {
      response = await fetch("ask/" + what, {
        method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(form),
      });
    } catch {
      throw new Error("sb3-permakey view does not answer any more: start it again, and open");
    }
    if (response.ok) return response;
    const told = await response.json().catch(() => ({}));
    throw new Error(told.error || `the answer was ${response.status} ${response.statusText}`);
  });
  asked = answer.catch(() => {});
  return answer;
}

function form() {
  const own = element("game").value === OWN;
  return {
    game: own ? "" : element("game").value,
    env: own ? element("env").value : "",
    sides: sides.filter((side) => !side.classList.contains("off")).map((side) => Object.fromEntries(
      [...side.querySelectorAll("[name]")]
        .filter((field) => !field.disabled && !field.closest("[hidden]"))
        .map((field) => [field.name, field.value]))),
    distractor: element("distractor").value,
    agent: element("agent").value,
    seed: element("seed").value,
  };
}

const draws = () => Object.fromEntries(
  [...document.querySelectorAll("[data-draws]")].map((box) => [box.dataset.draws, box.checked]));

async function open() {
  stop();
  element("open").disabled = true;
  element("open").textContent = "Opening …";
  try {
    const answer = await (await ask("open", {...form(), ...draws(), replaces: session ? session.id : null})).json();
    session = {id: answer.id};
    tell("");
    element("notes").replaceChildren(...answer.notes.map((note) => make("li", {textContent: note})));
    element("player").querySelector("[value=agent]").disabled = !answer.agent;
    if (answer.agent) element("player").value = "agent";
    else if (element("player").value === "agent") element("player").value = "random";
    playerChosen();
    show(answer);
  } catch (error) {
    tell(error.message);
  } finally {
    element("open").disabled = false;
    element("open").textContent = "Open";
  }
}

async function change(what, more) {
  if (!session) return false;
  try {
    show(await (await ask(what, {id: session.id, ...draws(), ...more})).json());
    tell("");
    return true;
  } catch (error) {
    stop();
    tell(error.message);
    return false;
  }
}

function step() {
  const keys = [...new Set([...held, ...tapped])];
  tapped.clear();
  return change("step", {player: element("player").value, keys});
}

async function play() {
  playing = true;
  element("play").setAttribute("aria-pressed", "true");
  element("play").textContent = "Pause";
  while (playing) {
    const until = performance.now() + 1000 / Number(element("speed").value);
    if (!await step()) break;
    await new Promise((wake) => setTimeout(wake, Math.max(0, until - performance.now())));
  }
}

function stop() {
  playing = false;
  element("play").setAttribute("aria-pressed", "false");
  element("play").textContent = "Play";
}

function show(look) {
  element("caption").textContent = look.caption;
  const panels = look.sides.map(sidePanel);
  if (look.agent) panels.push(agentPanel(look.agent));
  element("looks").replaceChildren(...panels);
  element("record").setAttribute("aria-pressed", String(look.records));
  element("record").textContent = look.records ? "Stop" : "Record";
  element("recorded").textContent = look.recorded ? `${look.recorded} frames` : "";
  element("save").disabled = !look.recorded;
  for (const id of ["reset", "step", "play", "record"]) element(id).disabled = false;
}

function sidePanel(side) {
  const head = make("div", {className: "head"}, make("h2", {textContent: side.title}));
  if (side.scores) {
    const {f1, precision, recall} = side.scores;
    head.append(make("span", {className: "scores"}, "F1 ", make("b", {textContent: f1.toFixed(2)}),
      ` (precision ${precision.toFixed(2)}, recall ${recall.toFixed(2)})`));
  }
  const panel = make("section", {className: "look"}, head, make("img", {src: side.picture, alt: side.title}));
  if (side.keypoints.some((one) => one.confidence !== null)) {
    panel.append(make("div", {className: "chips", title: "Each keypoint's confidence"}, ...side.keypoints.map(
      (one, index) => make("span", {}, dot(one.color), `${index}: ${one.confidence.toFixed(2)}`))));
  }
  if (side.maps.length) {
    panel.append(make("div", {className: "maps"}, ...side.maps.map((map) => make("figure", {},
      make("figcaption", {textContent: `error map of layer ${map.layer}`}),
      make("img", {src: map.picture, alt: `error map of layer ${map.layer}`})))));
  }
  return panel;
}

function agentPanel(agent) {
  const title = agent.attention ? "Where the agent looks" : agent.sees_keypoints ? "The agent's keypoints" : "The agent";
  const panel = make("section", {className: "look"},
    make("div", {className: "head"}, make("h2", {textContent: title}), make("span", {className: "scores"}, "\u00a0")));
  if (agent.sees_keypoints) panel.append(make("img", {src: agent.picture, alt: title}));
  panel.append(
    make("h3", {textContent: agent.values ? "values of its actions" : "its action; it has no Q values"}), values(agent));
  if (agent.attention) {
    panel.append(make("h3", {textContent: "percent of each query's attention to each keypoint"}), attention(agent));
  }
  return panel;
}

function values(agent) {
  const rows = agent.actions.map((name, index) => make(
    "tr", {className: index === agent.choice ? "chosen" : ""}, make("td", {textContent: name})));
  if (!agent.values) return make("table", {className: "values"}, make("tbody", {}, rows[agent.choice]));
  const low = Math.min(...agent.values), high = Math.max(...agent.values);
  agent.values.forEach((value, index) => {
    const bar = make("div", {className: "barline"});
    bar.style.width = `${high > low ? 5 + 95 * (value - low) / (high - low) : 100}%`;
    rows[index].append(make("td", {textContent: value.toFixed(3)}), make("td", {}, bar));
  });
  return make("table", {className: "values"}, make("tbody", {}, ...rows));
}

function attention(agent) {
  const head = make("tr", {}, make("th", {}),
    ...agent.colors.map((color, index) => make("th", {}, dot(color), String(index))));
  const rows = agent.attention.map((weights, query) => make("tr", {},
    make("th", {}, dot(agent.query_colors[query]), `query ${query}`),
    ...weights.map((weight) => {
      const cell = make("td", {textContent: Math.round(100 * weight)});
      cell.style.background = `rgba(57, 73, 171, ${0.9 * weight})`;
      cell.style.color = weight > 0.5 ? "#fff" : "inherit";
      return cell;
    })));
  return make("table", {className: "attention"}, make("tbody", {}, head, ...rows));
}

function dot(color) {
  const node = make("span", {className: "dot"});
  node.style.background = color;
  return node;
}

function playerChosen() {
  element("keys").hidden = element("player").value !== "keys";
}

function readoutChosen(side) {
  const readout = side.querySelector("[name=readout]").value;
  side.querySelector(".peaks").hidden = readout !== "peaks";
  side.querySelector("[name=num_keypoints]").disabled = readout === "pointnet";
}

// The checkpoint that comes along for the game, one that has learned with bars where there are any; "" if there is none.
function known(method) {
  const ofGame = choices.checkpoints.filter((one) => one.game === element("game").value && one.method === method);
  const bars = element("distractor").value !== "";
  return (ofGame.find((one) => (one.noise !== null) === bars) || ofGame[0] || {name: ""}).name;
}

// What a side shows; a student has no PointNet.
function setSide(side, name) {
  side.querySelector("[name=checkpoint]").value = name;
  const shipped = choices.checkpoints.find((one) => one.name === name);
  if (shipped && shipped.method === "distilled") side.querySelector("[name=readout]").value = "peaks";
  readoutChosen(side);
}

function gameChosen() {
  element("own").hidden = element("game").value !== OWN;
  sides.forEach((side, index) => { side.querySelector("[name=readout]").value = index ? "pointnet" : "peaks"; });
  setSide(sides[0], known("distilled"));
  setSide(sides[1], known("permakey") || known("transporter") || known("distilled"));
}

function barsChosen() {
  for (const field of document.querySelectorAll("[name=checkpoint]")) {
    const named = choices.checkpoints.find((one) => one.name === field.value && one.game === element("game").value);
    if (named) field.value = known(named.method);
  }
}

function besideChosen() {
  sides[1].classList.toggle("off", !element("beside").checked);
}

async function saveGif() {
  try {
    const url = URL.createObjectURL(await (await ask("gif", {id: session.id})).blob());
    make("a", {href: url, download: "sb3-permakey.gif"}).click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  } catch (error) {
    tell(error.message);
  }
}

function fillIn() {
  const options = (names) => names.map((name) => make("option", {value: name, textContent: name}));
  element("game").append(
    ...options(choices.games), make("option", {value: OWN, textContent: "an environment of my own"}));
  element("checkpoints").append(...options(choices.checkpoints.map((one) => one.name)));
  element("distractor").append(...options(choices.distractors));
  for (const side of sides) {
    side.append(element("side").content.cloneNode(true));
    const readout = side.querySelector("[name=readout]");
    readout.append(...options(choices.readouts));
    readout.addEventListener("change", () => readoutChosen(side));
  }
  const {game, env, agent, checkpoints} = choices.first;
  element("game").value = game || OWN;
  element("env").value = env || "";
  element("agent").value = agent || "";
  gameChosen();
  if (checkpoints.length) element("beside").checked = checkpoints.length > 1;
  checkpoints.forEach((name, index) => setSide(sides[index], name));
  besideChosen();
}

const plain = (key) => key.length === 1 ? key.toLowerCase() : key;
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=checkbox]), select");
  if (element("player").value !== "keys" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = plain(event.key);
  if (!/^(Arrow(Up|Down|Left|Right)|[wasd0-9 ])$/.test(key)) return;
  event.preventDefault();
  held.add(key);
  tapped.add(key);
  if (!playing && !event.repeat) step();
});
document.addEventListener("keyup", (event) => held.delete(plain(event.key)));
window.addEventListener("blur", () => held.clear());

element("settings").addEventListener("submit", (event) => { event.preventDefault(); open(); });
element("game").addEventListener("change", gameChosen);
element("distractor").addEventListener("change", barsChosen);
element("beside").addEventListener("change", besideChosen);
element("player").addEventListener("change", () => { playerChosen(); element("player").blur(); });
element("reset").addEventListener("click", () => { stop(); change("reset"); });
element("step").addEventListener("click", () => { stop(); step(); });
element("play").addEventListener("click", () => { element("play").blur(); if (playing) stop(); else play(); });
element("record").addEventListener("click", () => change("record", {on: element("record").textContent === "Record"}));
element("save").addEventListener("click", saveGif);
for (const box of document.querySelectorAll("[data-draws]")) box.addEventListener("change", () => change("draw"));

for (const id of ["reset", "step", "play", "record"]) element(id).disabled = true;
fetch("choices").then((answer) => answer.json()).then((answer) => {
  choices = answer;
  fillIn();
  if (sides[0].querySelector("[name=checkpoint]").value) open();
}).catch((error) => tell(error.message));
