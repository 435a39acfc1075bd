import * as openlora from 'openlora';
import { answers } from './answers.cjs';

console.log(JSON.stringify(await answers(openlora)));
