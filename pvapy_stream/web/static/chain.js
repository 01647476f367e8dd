// The chain as a graph: channels that come from elsewhere, stages, and the rates between them.
"use strict";

const Chain = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const WIDTH = 172, HEIGHT = 62, GAP_X = 96, GAP_Y = 22, EDGE = 8;
  const MANY = 6; // stages with the same inputs that are drawn one by one

  function element(name, attributes, parent, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  const sum = (stages, pick) => stages.reduce((total, one) => total + (pick(one) || 0), 0);
  const shorten = (text, length) => (text.length > length ? `…${text.slice(1 - length)}` : text);

  // Stages that share their inputs become one node when they are many.
  function nodesOf(stages) {
    const groups = new Map();
    for (const one of stages) {
      const key = `${one.kind}|${one.inputs.join("|")}`;
      groups.set(key, [...(groups.get(key) || []), one]);
    }
    const nodes = [];
    for (const members of groups.values()) {
      const parts = members.length > MANY && members[0].inputs.length ? [members] : members.map((one) => [one]);
      for (const part of parts) {
        nodes.push({
          stages: part, inputs: part[0].inputs, outputs: part.flatMap((one) => one.outputs),
          label: part.length > 1 ? `${part.length} ${part[0].kind || "stage"}s` : part[0].label,
          state: worst(part).state, tone: worst(part).tone, rate: sum(part, (one) => one.rates.processed),
          received: sum(part, (one) => one.rates.received), queued: sum(part, (one) => one.counts.queued),
        });
      }
    }
    const made = new Set(nodes.flatMap((node) => node.outputs));
    const sources = [...new Set(nodes.flatMap((node) => node.inputs))].filter((name) => !made.has(name));
    return [...sources.map((name) => ({ source: name, inputs: [], outputs: [name], label: name })), ...nodes];
  }

  const TONES = ["bad", "warn", "", "good", "over"];
  function worst(stages) {
    return stages.reduce((a, b) => (TONES.indexOf(b.tone) < TONES.indexOf(a.tone) ? b : a));
  }

  function edgesOf(nodes) {
    const edges = [];
    for (const to of nodes) {
      for (const from of nodes) {
        if (from !== to && from.outputs.some((name) => to.inputs.includes(name))) {
          const shared = nodes.filter((n) => n !== from && n.outputs.some((name) => to.inputs.includes(name))).length;
          edges.push({ from, to, rate: shared ? from.rate : to.received });
        }
      }
    }
    return edges;
  }

  function place(nodes, edges) {
    for (const node of nodes) node.column = 0;
    // As many rounds as there are nodes suffice, also when the graph has a circle.
    for (let round = 0; round < nodes.length; round += 1) {
      for (const { from, to } of edges) {
        if (to.column < from.column + 1 && from.column + 1 < nodes.length) to.column = from.column + 1;
      }
    }
    const columns = [];
    for (const node of nodes) (columns[node.column] ||= []).push(node);
    const filled = columns.filter(Boolean);
    const tallest = Math.max(...filled.map((column) => column.length));
    filled.forEach((column, x) => {
      const free = (tallest - column.length) * (HEIGHT + GAP_Y) / 2;
      column.forEach((node, y) => {
        node.x = EDGE + x * (WIDTH + GAP_X);
        node.y = EDGE + free + y * (HEIGHT + GAP_Y);
      });
    });
    return [2 * EDGE + filled.length * (WIDTH + GAP_X) - GAP_X, 2 * EDGE + tallest * (HEIGHT + GAP_Y) - GAP_Y];
  }

  function draw(svg, stages) {
    const nodes = nodesOf(stages);
    svg.textContent = "";
    if (!nodes.length) return;
    const edges = edgesOf(nodes);
    const [width, height] = place(nodes, edges);
    svg.setAttribute("width", width);
    // Made smaller on a narrow screen, but not so small that it cannot be read: then it scrolls.
    svg.style.minWidth = `${Math.round(width * 0.7)}px`;
    svg.setAttribute("height", height);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const marker = element("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto", markerUnits: "userSpaceOnUse" }, svg);
    element("path", { d: "M0 0 L8 4 L0 8 z" }, marker);
    edges.forEach((edge) => drawEdge(svg, edge));
    nodes.forEach((node) => drawNode(svg, node));
  }

  function drawEdge(svg, { from, to, rate }) {
    const [x1, y1, x2, y2] = [from.x + WIDTH, from.y + HEIGHT / 2, to.x - 2, to.y + HEIGHT / 2];
    const middle = (x1 + x2) / 2;
    const width = rate > 0 ? Math.min(4.5, 1.3 + Math.log10(1 + rate) * 0.7) : 1.2;
    element("path", {
      d: `M${x1} ${y1} C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`, class: rate > 0 ? "edge live" : "edge",
      "stroke-width": width, "marker-end": "url(#tip)",
    }, svg);
    element("text", { x: x1 + (x2 - x1) * 0.5, y: y1 + (y2 - y1) * 0.5 - 6, "text-anchor": "middle", class: "flow" }, svg, `${Charts.number(Math.round(rate))}/s`);
  }

  function drawNode(svg, node) {
    const group = element("g", { class: node.source ? "" : node.tone }, svg);
    element("title", {}, group, node.source || node.stages.map((one) => `${one.channel}: ${one.state}`).join("\n"));
    const box = { x: node.x, y: node.y, width: WIDTH, height: HEIGHT, rx: node.source ? HEIGHT / 2 : 10 };
    element("rect", { ...box, class: node.source ? "box" : "stage" }, group);
    const at = (line) => ({ x: node.x + WIDTH / 2, y: node.y + line, "text-anchor": "middle" });
    if (node.source) {
      element("text", { ...at(28), class: "name" }, group, shorten(node.source, 22));
      element("text", { ...at(46), class: "small" }, group, "channel");
      return;
    }
    element("text", { ...at(20), class: "name" }, group, shorten(node.label, 22));
    element("text", { ...at(37), class: "small" }, group, node.state);
    const queue = node.queued ? `, ${Charts.number(node.queued)} queued` : "";
    element("text", { ...at(53), class: "small" }, group, `${Charts.number(Math.round(node.rate))}/s${queue}`);
  }

  return { draw };
})();
