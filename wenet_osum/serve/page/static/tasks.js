// The choice of tasks: the server's list, the usual ones chosen.

import { byId, el } from './dom.js';
import { taskHint, taskName } from './strings.js';

const boxes = () => [...document.querySelectorAll('#tasks input, #more-tasks input')];

/** Names of the tasks that are chosen, in the server's order. */
export const chosenTasks = () => boxes().filter((box) => box.checked).map((box) => box.value);

/** Show the tasks; what was chosen before stays. */
export function showTasks(tasks) {
  const before = new Map(boxes().map((box) => [box.value, box.checked]));
  const chip = ({ name, usual }) =>
    el(
      'label',
      { class: 'chip', title: taskHint(name) },
      el('input', { type: 'checkbox', name: 'task', value: name, checked: before.get(name) ?? usual }),
      el('span', {}, taskName(name)),
    );
  byId('tasks').replaceChildren(...tasks.filter((task) => task.usual).map(chip));
  byId('more-tasks').replaceChildren(...tasks.filter((task) => !task.usual).map(chip));
  byId('more').hidden = tasks.every((task) => task.usual);
  byId('abilities').replaceChildren(
    ...tasks.filter((task) => task.usual).map(({ name }) => el('div', {}, el('dt', {}, taskName(name)), el('dd', {}, taskHint(name)))),
  );
}

/** The buttons for all and none: all the usual ones. */
export function wireTasks() {
  byId('all').addEventListener('click', () => {
    for (const box of document.querySelectorAll('#tasks input')) box.checked = true;
  });
  byId('none').addEventListener('click', () => {
    for (const box of boxes()) box.checked = false;
  });
}
