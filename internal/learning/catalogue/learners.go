package catalogue

// Backgrounds and Goals are what generated learners say about themselves and
// about why they learn. Any of one goes with any of the other. Keep the order
// and add at the end: generated learners pick by index.
var (
	Backgrounds = [...]string{
		"Back-end developer with five years of Java, curious about what happens below the ORM.",
		"Computer science student in the third year, with some Python and a lot of coffee.",
		"Runs a small remittance shop and wants to understand the systems behind it.",
		"Front-end developer who has shipped React apps and never written a server.",
		"Former bank clerk, now learning to program in the evenings.",
		"Site reliability engineer who looks after databases and message queues.",
		"Mathematics teacher with an interest in cryptography.",
		"Product manager at a payments start-up; reads code, seldom writes it.",
		"Embedded engineer, fluent in C, new to Rust and to distributed ledgers.",
		"Economist working on financial inclusion in rural areas.",
		"Security analyst who has spent three years on web penetration tests.",
		"Self-taught developer who came from graphic design.",
		"Data engineer, at home in SQL, Spark and Airflow.",
		"Lawyer who advises on the regulation of digital assets.",
		"Mobile developer with two apps in the stores and an idea for a third.",
		"Open-source contributor, mostly documentation and small fixes so far.",
		"Accountant at a non-profit that is paid in four currencies.",
		"Quality engineer who automates tests and breaks things for a living.",
		"Has held tokens since 2017 and would like to know how they work.",
		"Network administrator moving towards cloud infrastructure.",
		"Game developer, strong in C#, who wants items that players really own.",
		"Physics graduate looking for a first job in software.",
		"Technical writer for developer tools, tired of describing what I cannot run.",
		"Tech lead of a team of six that is about to split its first monolith.",
		"Returned to work after a break of four years; wrote PHP before that.",
		"Community organiser who teaches neighbours how to avoid online fraud.",
	}

	Goals = [...]string{
		"Deploy a first smart contract to the test network by the end of the month.",
		"Understand Stellar well enough to judge whether it fits our payment product.",
		"Move from front-end work to a role as a back-end developer.",
		"Prepare for interviews on distributed systems.",
		"Be able to review a contract before my team puts it into production.",
		"Send money home at a lower cost, and explain to my family how it works.",
		"Pass every quiz of the security track.",
		"Build an anchor for our local currency.",
		"Learn Go properly instead of by trial and error.",
		"Find out which promises about decentralised finance hold up.",
		"Write a thesis on consensus protocols and need a firm base.",
		"Make our API faster without serving stale data.",
		"Start a newsletter on Web3 in my own language.",
		"Keep my savings safe without depending on an exchange.",
		"Earn credentials that I can show to an employer.",
		"Read research papers on zero-knowledge proofs without giving up on page two.",
		"Design a token that rewards volunteers fairly.",
		"Become the person in the team who can read a query plan.",
		"Contribute a first patch to an open-source wallet.",
		"Understand what I sign before I sign it.",
		"Set up monitoring that wakes us only when users suffer.",
		"Teach a weekend class on blockchain basics at the local library.",
		"Learn a little every day and finish one course per quarter.",
		"Compare rollups and choose one for our next project.",
		"Advise clients on digital assets with more than half-knowledge.",
		"Write tests that I trust enough to deploy on a Friday.",
	}
)
