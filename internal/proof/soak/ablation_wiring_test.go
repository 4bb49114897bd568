package soak

const inPostgres = inOutbox + "/postgres"

// What keeps a program from being wired to lie: one spelling of a tag, families unasked, watches,
// consumers, and the checks.
var wiringAblations = []ablation{
	{
		"a tag: what a part may not hold is escaped",
		"cache/driver/tag.go", "if c := text[i]; plain(c) {", "if c := text[i]; true {",
		[]failingTest{test(inCache, "TestTagsAreSpelledOneWay"), test(inPostgres, "TestATagIsSpelledAlikeOnBothSides")},
	},
	{
		"a tag: every session spells an instant alike",
		"cache/outbox/pgschema/outbox.sql", "as_text := format('%I.cache_text((%s)::timestamptz)', home, value);", "as_text := format('(%s)::text', value);",
		[]failingTest{test(inPostgres, "TestATagIsSpelledAlikeOnBothSides")},
	},
	{
		"a tag: and what an expression makes of one",
		"cache/outbox/pgschema/outbox.sql", "pinned := $f$SET DateStyle = 'ISO, MDY' SET TimeZone = 'UTC' SET IntervalStyle = 'postgres' SET bytea_output = 'hex' SET extra_float_digits = 1$f$;", "pinned := '';",
		[]failingTest{test(inPostgres, "TestExpressionsDoNotDependOnTheSession")},
	},
	{
		"a tag: its family follows from the kind, by one rule on both sides",
		"cache/driver/tag.go", "return Tag(t.Kind() + \":*\")", "return t[:max(0, strings.LastIndexByte(string(t), ':'))] + \":*\"",
		[]failingTest{test(inCache, "TestFamilyFollowsFromTheKind")},
	},
	{
		"a tag: of a long value it is a hash",
		"cache/outbox/pgschema/outbox.sql", "ELSIF octet_length(tag) > 200 THEN\n        RETURN", "ELSIF false THEN\n        RETURN",
		[]failingTest{test(inPostgres, "TestATagIsSpelledAlikeOnBothSides")},
	},
	{
		"a tag: and a huge value is not spelled at all",
		"cache/outbox/pgschema/outbox.sql", "ELSIF octet_length(part) > 8192 THEN", "ELSIF false THEN",
		[]failingTest{test(inPostgres, "TestHugeValues")},
	},
	{
		"a tag: a type without one text is refused",
		"cache/outbox/pgschema/outbox.sql", "WHEN base IN ('text'::regtype, 'varchar'::regtype, 'name'::regtype) THEN", "WHEN base IN ('text'::regtype, 'varchar'::regtype, 'name'::regtype, 'bpchar'::regtype) THEN",
		[]failingTest{test(inPostgres, "TestTypesWithoutOneTextAreRefused")},
	},
	{
		"families: every answer depends on those of its tags, unasked",
		"cache/tag.go", "add(s.family(t))", "_ = s.family(t)",
		[]failingTest{
			test(inCache, "TestAnswersDependOnFamiliesUnasked"),
			test(inOutbox+"/sqlite", "TestProtocol/TestBulkWritesReachAnswersOfOneTag"), test(inOutbox+"/sqlite", "TestProtocol/TestWaitingTransactionsReachAnswersOfOneTag"),
		},
	},
	{
		"families: TRUNCATE records them",
		"cache/outbox/pgschema/outbox.sql", "queries := queries || format('SELECT %L', coalesce(t.constant, t.kind || ':*'));", "NULL;",
		[]failingTest{test(inPostgres, "TestEveryWayToChangeARow"), test(inPostgres, "TestWhatIsTooMuchToNameIsSeen")},
	},
	{
		"families: what an outage leaves to repeat is widened, never dropped",
		"cache/bumps.go", "\t\tr.widen(now)\n\t}\n}", "\t\tr.list = r.list[1:]\n\t}\n}",
		[]failingTest{test(inCache, "TestInvalidationsBeyondEveryBoundAreNotLost")},
	},
	{
		"a watch: of a row that moves, the tags of both versions",
		"cache/outbox/pgschema/outbox.sql", "'(TABLE o EXCEPT TABLE n) UNION ALL (TABLE n EXCEPT TABLE o)) AS changed'", "'(TABLE n EXCEPT TABLE o)) AS changed'",
		[]failingTest{test(inPostgres, "TestMovedRowsNeedNoList")},
	},
	{
		"a watch: no two tables share the function of a trigger",
		"cache/outbox/pgschema/outbox.sql", "left(self, 20), nextval('cache_watch_numbers'))", "'shared', 0)",
		[]failingTest{test(inPostgres, "TestNamesOfTables")},
	},
	{
		"a watch: it replaces none of another name",
		"cache/outbox/pgschema/outbox.sql", "w.relation = watched AND w.watch = cache_watch.watch);", "w.relation = watched LIMIT 1);",
		[]failingTest{test(inPostgres, "TestWatchesOfOneTableCoexist")},
	},
	{
		"a watch: a query gives any number of tags",
		"cache/outbox/pgschema/outbox.sql", "query := cache_query_of(piece->>'sql');\n", "query := NULL;\n",
		[]failingTest{test(inPostgres, "TestQueriesGiveManyTags")},
	},
	{
		"a watch: views are refused",
		"cache/outbox/pgschema/outbox.sql", "ELSIF this.relkind NOT IN ('r', 'p') OR", "ELSIF this.relkind NOT IN ('r', 'p', 'v', 'm') OR",
		[]failingTest{test(inPostgres, "TestOnlyTablesAreWatched")},
	},
	{
		"consumers: a row stays until every store has got it",
		"cache/outbox/pgschema/consumers.go", "others = `EXISTS (SELECT FROM cache_consumers WHERE name <> $1::text)`", "others = `($1::text = '')`",
		[]failingTest{test(inPostgres, "TestEveryConsumerGetsEveryRow")},
	},
	{
		"consumers: a write that no relay would deliver is an error",
		"cache/outbox/postgres/db.go", "case !joined:", "case false && !joined:",
		[]failingTest{test(inPostgres, "TestWriteNeedsARelay")},
	},
	{
		"limits: a transaction ends before its fence does",
		"cache/outbox/postgres/db.go", "lease = c.FenceLease()", "_ = c",
		[]failingTest{test(inPostgres, "TestConfigIsChecked")},
	},
	{
		"check: a kind that is read and never recorded",
		"cache/check.go", "if !recorded[kind] {", "if false {",
		[]failingTest{test(inCache, "TestCheckComparesKinds")},
	},
	{
		"check: a partition that was attached later",
		"cache/outbox/pgschema/outbox.sql", "WHEN m.prosrc IS NULL THEN\n", "WHEN m.prosrc IS NULL THEN CONTINUE;\n            WHEN false THEN\n",
		[]failingTest{test(inPostgres, "TestCheckFindsWhatIsMissing")},
	},
	{
		"check: a trigger that is disabled",
		"cache/outbox/pgschema/outbox.sql", "WHEN m.tgenabled <> 'A' THEN", "WHEN false THEN",
		[]failingTest{test(inPostgres, "TestCheckFindsWhatIsMissing")},
	},
	{
		"keys: derived from every field",
		"cache/key.go", "fields = append(fields, field)", "fields = []partWriter{field}",
		[]failingTest{test(inCache, "TestKeyIsDerivedFromTheWholeParameter")},
	},
	{
		"loads see none of the caller's values",
		"cache/load.go", "context.WithCancelCause(onlyValues{ctx, keys})", "context.WithCancelCause(context.WithoutCancel(ctx))",
		[]failingTest{test(inCache, "TestLoadSeesNoneOfTheCallersValues")},
	},
	{
		"check: another definition of a query in the store",
		"cache/shape.go", "return s.Hash == d.shape.Hash ||", "return true ||",
		[]failingTest{test(inCache, "TestCheckFindsAnotherDefinitionInTheStore")},
	},
	{
		"define: a value that JSON does not keep is refused",
		"cache/keeps.go", "case !f.IsExported():", "case false:",
		[]failingTest{test(inCache, "TestWhatJSONLoses")},
	},
	{
		"verify: a key that leaves something out",
		"cache/cachetest/verify.go", "if key != other.key {", "if true {",
		[]failingTest{test(inCache+"/cachetest", "TestVerifyFindsAKeyThatLeavesSomethingOut")},
	},
}
