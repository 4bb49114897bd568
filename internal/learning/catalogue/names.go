package catalogue

// FirstNames and LastNames are given and family names from many parts of the
// world. Any pair makes a plausible display name of a generated learner. Keep
// the order and add at the end: generated learners pick by index.
var (
	FirstNames = [...]string{
		"Abena", "Adaeze", "Adriana", "Aiko", "Aisha", "Alejandro", "Amara", "Amina",
		"Anders", "Ananya", "Andrei", "Anh", "Anneli", "Arjun", "Astrid", "Aylin",
		"Babajide", "Beatriz", "Benjamin", "Bilal", "Birgit", "Bogdan", "Camila", "Carlos",
		"Cédric", "Chiara", "Chidi", "Chloé", "Dalia", "Daniel", "Daria", "Dmytro",
		"Eduardo", "Eilidh", "Elena", "Elif", "Emeka", "Emily", "Emre", "Esther",
		"Fatima", "Felipe", "Femi", "Fernanda", "Filip", "Freya", "Gabriela", "Giulia",
		"Grace", "Hana", "Hannah", "Haruto", "Hassan", "Hiroshi", "Hugo", "Ibrahim",
		"Ifeoma", "Ingrid", "Ioana", "Isabella", "Ivan", "Jakub", "Jamal", "Javier",
		"Ji-woo", "Joana", "Johanna", "José", "Julien", "Kaito", "Kamala", "Karim",
		"Katarzyna", "Kenji", "Khadija", "Kofi", "Kwame", "Lars", "Laszlo", "Layla",
		"Leilani", "Liam", "Lina", "Linh", "Lucía", "Lukas", "Magdalena", "Malik",
		"Manuel", "Marek", "Mariam", "Marta", "Mateo", "Maya", "Mehmet", "Mei",
		"Miguel", "Mihai", "Minh", "Mira", "Mohammed", "Nadia", "Naledi", "Nia",
		"Niamh", "Nikolai", "Noah", "Nomvula", "Nour", "Olga", "Oliver", "Omar",
		"Paulo", "Pedro", "Petra", "Priya", "Rafael", "Rania", "Ravi", "Reza",
		"Rohan", "Sakura", "Samira", "Sanjay", "Santiago", "Seo-yeon", "Sergei", "Shira",
		"Siobhán", "Sofia", "Somchai", "Svetlana", "Tamara", "Tariq", "Tendai", "Thandiwe",
		"Thiago", "Tomás", "Tui", "Valentina", "Viktor", "Wanjiru", "Wei", "Xiomara",
		"Yara", "Yasmin", "Yusuf", "Zanele", "Zeynep", "Zofia",
	}

	LastNames = [...]string{
		"Abdullah", "Abebe", "Achieng", "Acosta", "Adeyemi", "Afolabi", "Ahmed", "Al-Farsi",
		"Almeida", "Álvarez", "Andersson", "Asante", "Bakker", "Balogun", "Banerjee", "Barbosa",
		"Bauer", "Becker", "Ben-David", "Bianchi", "Boateng", "Bondarenko", "Botha", "Brown",
		"Campbell", "Cardoso", "Castillo", "Çelik", "Chanda", "Chen", "Cheng", "Choi",
		"Costa", "Cruz", "Da Silva", "Dang", "Demir", "Dhillon", "Diallo", "Diaz",
		"Dimitrov", "Dlamini", "Dubois", "Edwards", "Eriksen", "Fernandes", "Ferrari", "Fischer",
		"Flores", "Fofana", "García", "Georgiou", "Ghorbani", "Gómez", "González", "Greenberg",
		"Gupta", "Haddad", "Hakimi", "Hansen", "Hernández", "Horvat", "Hossain", "Huang",
		"Ibáñez", "Ito", "Ivanova", "Jansen", "Johansson", "Kamau", "Kang", "Kapoor",
		"Karlsson", "Katz", "Kaya", "Khan", "Kim", "Kimani", "Kovács", "Kowalski",
		"Kumar", "Lam", "Laurent", "Lee", "Lehtonen", "Li", "Lindqvist", "Lopez",
		"Mahlangu", "Mäkinen", "Malhotra", "Mancini", "Martin", "Mbeki", "Mendoza", "Mensah",
		"Meyer", "Mitchell", "Moreau", "Moreno", "Moyo", "Murphy", "Mwangi", "Nakamura",
		"Nasser", "Ndlovu", "Nguyen", "Nielsen", "Novak", "Nowak", "Nwosu", "Obi",
		"Ochieng", "Okafor", "Okonkwo", "Oliveira", "Osei", "Owusu", "Papadopoulos", "Park",
		"Patel", "Pereira", "Petrov", "Pham", "Popescu", "Quispe", "Rahman", "Ramírez",
		"Reyes", "Ribeiro", "Rojas", "Rossi", "Said", "Santos", "Sato", "Schmidt",
		"Sharma", "Shevchenko", "Silva", "Singh", "Sithole", "Smirnov", "Suzuki", "Tadesse",
		"Tan", "Tanaka", "Taylor", "Thapa", "Torres", "Traoré", "Tran", "Usman",
		"Vargas", "Vega", "Virtanen", "Wagner", "Walker", "Wang", "Williams", "Wójcik",
		"Wong", "Yamamoto", "Yilmaz", "Zhang", "Zulu", "Zhou",
	}
)
