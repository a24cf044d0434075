/** Dark or light: as the system says, until somebody chooses; a link may say it (`theme=`). */

import { computed, effect, signal } from '@preact/signals';
import { parameter } from '../net/address';

const system = matchMedia('(prefers-color-scheme: dark)');
const isSystemDark = signal(system.matches);
system.addEventListener('change', () => (isSystemDark.value = system.matches));

const chosen = signal(localStorage.getItem('tiled_stream theme'));

export const theme = computed<'dark' | 'light'>(() => {
  const wanted = parameter('theme').value ?? chosen.value;
  return wanted === 'dark' || wanted === 'light' ? wanted : isSystemDark.value ? 'dark' : 'light';
});

export function switchTheme(): void {
  chosen.value = theme.value === 'dark' ? 'light' : 'dark';
  localStorage.setItem('tiled_stream theme', chosen.value);
}

effect(() => {
  document.documentElement.dataset.theme = theme.value;
});

// Told apart by people who do not see all colours, on either ground; never the only thing that tells two lines apart.
const ON_LIGHT = ['#0072b2', '#d55e00', '#00825c', '#a8478a', '#8a6d00', '#3b8ec2'];
const ON_DARK = ['#4cb3f5', '#ff9352', '#2fd3a0', '#e79bcb', '#f0d24a', '#8fd0f5'];

export const colors = (): string[] => (theme.peek() === 'dark' ? ON_DARK : ON_LIGHT);
