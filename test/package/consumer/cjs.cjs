'use strict';
const openlora = require('openlora');
const { answers } = require('./answers.cjs');

answers(openlora).then((result) => console.log(JSON.stringify(result)));
