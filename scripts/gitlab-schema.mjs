// Checks the GitLab CI files named against GitLab's own schema, which
// gitlab-ci-local brings along. The header (spec) and the jobs are documents of
// their own. Usage: node gitlab-schema.mjs DIRECTORY_OF_NODE_MODULES FILE…
import {readFileSync} from "node:fs";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const [modules, ...files] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${modules}/package.json`));
const Ajv = require("ajv").default;
const yaml = require("js-yaml");
const {schema} = await import(pathToFileURL(`${modules}/node_modules/gitlab-ci-local/src/schema/schema.js`));

const validate = new Ajv({allErrors: true, strict: false, validateFormats: false}).compile(schema);
const reference = new yaml.Type("!reference", {kind: "sequence"});
const dialect = yaml.DEFAULT_SCHEMA.extend(reference);
for (const file of files) {
	for (const document of yaml.loadAll(readFileSync(file, "utf8"), null, {schema: dialect})) {
		if (validate(document)) continue;
		process.exitCode = 1;
		for (const error of validate.errors) console.log(`${file}: ${error.instancePath} ${error.message}`);
	}
}
