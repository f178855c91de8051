"""The words of the synthetic grocery store: its tree, flavours, sizes, brands, phrases and recipes.

All names are made up for this project. The tree is text so that a reader sees the shop: a department has
no indent, an aisle one space, a shelf two; every line with `|` is a leaf, so some aisles are leaves.
The fields of a leaf are `name | products | flavour family | size family | marks`. Marks: m meat, f fish,
d dairy, e egg or honey, g gluten, w alcohol (wine, beer), b baby, o dog, c cat, p perishable (bought
again and again), * a huge leaf, and a number 1-12 for the month it sells best in.
"""

from __future__ import annotations

from dataclasses import dataclass

TREE = """
Produce
 Fresh Fruit
  Apples & Pears | gala apples, fuji apples, russet apples, conference pears | - | loose | p 10
  Citrus Fruit | navel oranges, clementines, lemons, limes, grapefruit | - | loose | p 1
  Berries | strawberries, blueberries, raspberries, blackberries | - | small | p 6
  Stone Fruit | peaches, nectarines, plums, apricots, cherries | - | loose | p 7
  Tropical Fruit | mangoes, pineapple, kiwis, papaya, passion fruit | - | each | p
  Grapes | red grapes, green grapes, black grapes | - | mid | p
  Melons | watermelon, cantaloupe melon, honeydew melon | - | each | p 7
  Avocados | ripe avocados, small avocados | - | each | p
 Bananas | bananas, baby bananas, plantains | - | loose | p
 Fresh Vegetables
  Leafy Greens | baby spinach, rocket, kale, romaine lettuce, mixed leaves | - | small | p
  Root Vegetables | carrots, parsnips, beetroot, turnips | - | loose | p 11
  Potatoes | baking potatoes, new potatoes, sweet potatoes | - | big | p
  Tomatoes | cherry tomatoes, vine tomatoes, plum tomatoes | - | small | p
  Peppers & Chillies | mixed peppers, red peppers, green chillies | - | each | p
  Onions & Garlic | red onions, yellow onions, shallots, garlic bulbs | - | loose | p
  Broccoli & Cabbage | broccoli, cauliflower, red cabbage, brussels sprouts | - | each | p
  Squash & Pumpkin | butternut squash, carving pumpkin, acorn squash | - | each | p 10
  Mushrooms | button mushrooms, portobello mushrooms, shiitake mushrooms | - | small | p
  Cucumbers & Courgettes | cucumber, courgettes, aubergine | - | each | p 7
  Asparagus & Green Beans | asparagus, green beans, sugar snap peas | - | small | p 5
  Sweetcorn | sweetcorn cobs, baby corn | - | each | p 8
 Fresh Herbs | basil, coriander, flat parsley, mint, rosemary, thyme | - | herb | p
 Prepared Produce
  Salad Kits | caesar salad kit, slaw kit, grain salad kit | - | mid | p 7
  Cut Fruit | fruit salad, melon chunks, mango pieces | - | small | p
  Stir-Fry Vegetables | stir-fry mix, vegetable noodles, chopped vegetable mix | - | mid | p
  Dressings & Dips for Salad | caesar dressing, vinaigrette, ranch dressing | savoury | ml | d
 Seasonal Boxes
  Harvest Boxes | vegetable box, fruit box, mixed harvest box | - | each | p
 Flowers | tulips, roses, mixed bouquet, potted orchid | - | each | 5
Dairy & Eggs
 Milk
  Whole Milk | whole milk | - | litre | d p
  Reduced Fat Milk | semi-skimmed milk, skimmed milk | - | litre | d p
  Lactose-Free Milk | lactose-free milk | - | litre | p
  Flavoured Milk | milkshake, flavoured milk | sweet | ml | d
 Plant Milk
  Oat Drinks | oat drink, barista oat drink | plantmilk | litre | p
  Almond Drinks | almond drink | plantmilk | litre | p
  Soy Drinks | soy drink | plantmilk | litre | p
  Coconut & Rice Drinks | coconut drink, rice drink | plantmilk | litre | p
 Yogurt
  Greek Yogurt | greek yogurt, strained yogurt, skyr | fruit | cup | d p
  Fruit Yogurt | fruit yogurt, creamy yogurt, low fat yogurt, set yogurt | fruit | cup | d p *
  Plain Yogurt | natural yogurt, bio yogurt | - | cup | d p
  Plant-Based Yogurt | coconut yogurt alternative, oat yogurt alternative | fruit | cup | p
  Kids' Yogurt | yogurt pouch, yogurt tube | fruit | pack | d p
  Kefir & Drinking Yogurt | kefir, drinking yogurt | fruit | ml | d p
 Butter & Spreads
  Butter | salted butter, unsalted butter, cultured butter | - | small | d p
  Margarine & Plant Spreads | sunflower spread, olive spread, plant butter | - | mid | p
 Cream
  Whipping & Cooking Cream | whipping cream, single cream, cooking cream | - | ml | d p
  Sour Cream | sour cream, creme fraiche | - | cup | d p
 Eggs | free-range eggs, barn eggs, large eggs | - | eggs | e p
 Everyday Cheese
  Cheddar | cheddar block, cheddar slices | cheese | small | d p
  Mozzarella | mozzarella ball, mozzarella pearls | - | small | d p
  Grated Cheese | grated mozzarella, grated cheddar, pizza cheese mix | - | small | d p
  Cream Cheese | cream cheese, soft cheese | cheese | cup | d p
  Cottage Cheese & Ricotta | cottage cheese, ricotta | - | cup | d p
  Cheese Snacks | cheese sticks, mini cheese rounds | - | pack | d p
 Chilled Desserts
  Puddings & Custard | custard pot, rice pudding, pudding cup | sweet | cup | d
  Mousse & Trifle | mousse, trifle, panna cotta | sweet | cup | d
 Fresh Dough | pizza dough, puff pastry, cookie dough | - | mid | g
Meat & Fish
 Poultry
  Chicken Breast & Thighs | chicken breast fillets, chicken thighs, diced chicken | savoury | mid | m p
  Whole Chicken | whole chicken, roasting chicken | - | each | m p
  Turkey | whole turkey, turkey mince, turkey breast | - | mid | m 12
 Beef
  Steaks | sirloin steak, ribeye steak, rump steak | - | small | m 7
  Minced Beef | lean minced beef, minced beef, burger mince | - | mid | m p
  Beef Roasts & Stewing | beef roasting joint, stewing beef, short ribs | - | mid | m 1
 Burgers & Grill
  Beef Burgers | beef burgers, steak burgers | savoury | pack | m 7
  Kebabs & Marinated Meat | chicken skewers, pork ribs, lamb koftas | savoury | mid | m 7
 Pork & Lamb
  Pork | pork chops, pork loin, pulled pork | - | mid | m p
  Bacon | smoked bacon, unsmoked bacon, streaky bacon | - | small | m p
  Lamb | lamb leg, lamb chops, lamb mince | - | mid | m 4
 Sausages
  Fresh Sausages | pork sausages, beef sausages, chicken sausages | savoury | pack | m p
  Frankfurters | frankfurters, jumbo hot dogs | - | pack | m 7
 Fresh Fish
  Salmon & Trout | salmon fillets, trout fillets, smoked salmon | - | small | f p
  White Fish | cod fillets, haddock fillets, sea bass | - | small | f p
 Shellfish | raw prawns, mussels, scallops, crab meat | - | small | f
 Meat Alternatives
  Tofu & Tempeh | firm tofu, silken tofu, tempeh | savoury | small | p
  Plant Burgers & Sausages | plant burgers, plant sausages | savoury | pack | 7
  Plant Mince & Pieces | plant mince, plant chicken pieces, seitan strips | - | mid |
Deli
 Specialty Cheese
  Brie & Camembert | brie, camembert, triple cream cheese | - | small | d 12
  Blue Cheese | stilton style blue, gorgonzola style blue, creamy blue | - | small | d 12
  Goat & Sheep Cheese | goat cheese log, aged goat cheese, pecorino style cheese | cheese | small | d
  Alpine & Gouda | aged gouda, gruyere style cheese, smoked gouda | cheese | small | d
  Feta & Halloumi | feta, halloumi, grilling cheese | - | small | d 7
  Hard Italian Cheese | parmesan style wedge, grated parmesan style cheese | - | small | d p
 Cured Meats
  Salami & Chorizo | salami, chorizo, pepperoni | savoury | small | m
  Ham & Prosciutto | cooked ham, prosciutto, serrano ham | - | small | m p
  Sliced Poultry | sliced turkey, sliced chicken | savoury | small | m p
 Olives & Antipasti
  Olives | green olives, black olives, kalamata olives, stuffed olives | savoury | small |
  Antipasti | sun-dried tomatoes, grilled artichokes, roasted peppers | - | small |
  Pate & Terrine | chicken liver pate, mushroom pate, duck terrine | - | small | m 12
 Dips
  Hummus | hummus, hummus snack pot | dip | cup | p
  Guacamole & Salsa | guacamole, fresh salsa, bean dip | - | cup | 7
  Yogurt Dips | tzatziki, onion dip, ranch dip | - | cup | d
 Fresh Pasta
  Filled Pasta | ravioli, tortellini, cappelletti | pasta filling | mid | d g e
  Fresh Noodles & Gnocchi | gnocchi, egg noodles, fresh tagliatelle | - | mid | g e
 Ready Meals
  Chilled Soup | chilled soup, soup pot | soup | mid | 1 p
  Chilled Pizza | stone baked pizza, thin crust pizza | pizza | mid | d g
  Sushi & Poke | sushi box, poke bowl | - | each | f
  Family Meals | lasagne, cottage pie, chicken curry with rice | - | mid | m g
 Savoury Pies
  Quiches & Tarts | quiche, savoury tart | - | mid | d g e
Bakery
 Bread
  Sandwich Bread | white bread, soft white loaf, toast bread | - | loaf | g p
  Whole Grain Bread | whole wheat bread, multigrain loaf, oat bread | - | loaf | g p
  Sourdough & Artisan Bread | sourdough loaf, country loaf, ciabatta, baguette | - | loaf | g p
  Rye & Seeded Bread | rye bread, pumpernickel, seeded loaf | - | loaf | g p
  Gluten-Free Bread | gluten-free loaf, gluten-free rolls | - | loaf | p
 Rolls & Buns
  Burger & Hot Dog Buns | burger buns, brioche buns, hot dog rolls | - | pack | g 7
  Dinner Rolls | dinner rolls, crusty rolls, soft rolls | - | pack | g p
  Bagels & English Muffins | bagels, english muffins, crumpets | bagel | pack | g p
 Flatbreads
  Tortillas & Wraps | flour tortillas, corn tortillas, wraps | - | pack | g p
  Naan | naan bread, mini naan | savoury | pack | g
  Pita | pita bread, pita pockets | - | pack | g p
 Pastries
  Croissants | butter croissants, mini croissants, chocolate croissants | - | pack | d g
  Muffins & Cupcakes | muffins, cupcakes | sweet | pack | d g e
  Doughnuts | ring doughnuts, filled doughnuts | sweet | pack | d g e
 Cakes
  Celebration Cakes | birthday cake, layer cake, cheesecake | sweet | each | d g e
  Loaf Cakes | banana loaf, lemon loaf, ginger cake | - | each | d g e
  Holiday Baking | fruit cake, panettone, mince pies, gingerbread | - | each | d g e 12
Pantry
 Pasta & Noodles
  Dried Pasta | spaghetti, penne, fusilli, farfalle, linguine | - | mid | g p
  Gluten-Free & Pulse Pasta | red lentil pasta, chickpea pasta, brown rice pasta | - | mid | p
  Asian Noodles | rice noodles, udon noodles, ramen noodles | - | mid | g
  Instant Noodles | instant noodles, noodle cup | noodle | pack | g
 Pasta Sauce
  Tomato Pasta Sauce | pasta sauce, tomato sauce | sauce | jar |
  Pesto | pesto, pesto rosso | - | jar | d
 Rice & Grains
  Rice | basmati rice, jasmine rice, brown rice, risotto rice | - | big |
  Quinoa & Couscous | quinoa, couscous, bulgur | - | mid |
  Ready Rice | microwave rice, rice pouch | savoury | small |
 Tins & Jars
  Tinned Tomatoes | chopped tomatoes, peeled plum tomatoes, tomato puree | - | tin | p
  Beans & Pulses | chickpeas, kidney beans, black beans, red lentils | - | tin |
  Tinned Fish | tuna chunks, sardines, mackerel fillets, anchovies | fish | tin | f
  Tinned Vegetables | sweetcorn kernels, green peas, artichoke hearts | - | tin |
  Tinned Soup | tinned soup, hearty soup | soup | tin | 1
  Pickles | gherkins, pickled onions, capers, sauerkraut | - | jar |
 Baking
  Flour | plain flour, bread flour, whole wheat flour, almond flour | - | big | g 12
  Sugar & Sweeteners | caster sugar, brown sugar, icing sugar, stevia | - | big | 12
  Baking Chocolate & Nuts | chocolate chips, cocoa powder, ground almonds | - | small | 12
  Yeast & Raising Agents | baking powder, dried yeast, vanilla extract | - | herb | 12
  Cake Mixes | cake mix, brownie mix, pancake mix | sweet | mid | g
 Oils & Vinegars
  Olive Oil | extra virgin olive oil, olive oil | oil | bottle |
  Cooking Oil | sunflower oil, rapeseed oil, coconut oil | - | bottle |
  Vinegar | balsamic vinegar, cider vinegar, red wine vinegar | - | ml |
 Herbs & Spices
  Ground Spices | cumin, smoked paprika, turmeric, cinnamon, curry powder | - | herb |
  Dried Herbs | oregano, dried basil, bay leaves, herb mix | - | herb |
  Salt & Pepper | sea salt flakes, black peppercorns, table salt | - | small |
 Stock & Gravy
  Stock Cubes & Broth | vegetable stock, chicken stock, bone broth | - | pack | 1
 Condiments
  Ketchup & Barbecue Sauce | ketchup, barbecue sauce, brown sauce | - | jar | 7
  Mustard | dijon mustard, wholegrain mustard, yellow mustard | - | jar | 7
  Mayonnaise | mayonnaise, light mayonnaise, vegan mayo | - | jar | e
  Hot Sauce | hot sauce, chilli sauce, sriracha | heat | ml |
 Breakfast
  Cereal | corn flakes, granola, muesli, bran flakes, puffed rice | cereal | mid | g p
  Oats & Porridge | rolled oats, porridge sachets, overnight oats | cereal | mid | p 1
  Honey | clear honey, set honey, acacia honey | - | jar | e
  Jam & Marmalade | jam, fruit spread, marmalade | jam | jar |
  Nut Butter | peanut butter, almond butter, hazelnut spread | - | jar |
  Syrups | maple syrup, golden syrup, agave syrup | - | ml |
 World Foods
  Mexican | taco shells, refried beans, taco seasoning, enchilada sauce | - | small |
  Indian | tikka masala paste, korma sauce, mango chutney, poppadoms | - | jar |
  Thai & Coconut | coconut milk, thai curry paste, fish sauce | - | tin |
  Japanese & Chinese | soy sauce, miso paste, nori sheets, hoisin sauce | - | ml |
  Middle Eastern | tahini, harissa, falafel mix, pomegranate molasses | - | jar |
Snacks & Sweets
 Crisps & Chips
  Potato Crisps | potato crisps, ridged crisps, kettle chips, baked crisps | crisp | small | *
  Tortilla Chips | tortilla chips, rolled tortilla chips | crisp | small | 7
  Popcorn | popcorn, microwave popcorn | popcorn | small |
  Vegetable & Lentil Chips | lentil chips, beetroot chips, chickpea puffs | crisp | small |
  Pretzels | pretzels, pretzel sticks | savoury | small | g
 Crackers
  Crackers for Cheese | water crackers, seeded crackers, oat cakes, rye crispbread | savoury | small | g 12
  Rice Cakes | rice cakes, corn cakes | ricecake | small |
  Breadsticks | breadsticks, grissini | savoury | small | g
 Nuts & Dried Fruit
  Nuts | roasted almonds, cashews, pistachios, mixed nuts, walnuts | savoury | small | 12
  Dried Fruit | raisins, dried apricots, medjool dates, dried mango | - | small |
  Trail Mix | trail mix, seed mix | - | small |
 Bars
  Cereal Bars | cereal bar, oat bar, granola bar | bar | pack | g
  Protein Bars | protein bar, crunchy protein bar | bar | pack | d
  Fruit & Nut Bars | date bar, fruit and nut bar | bar | pack |
 Biscuits
  Cookies | chocolate chip cookies, oat cookies, sandwich cookies | sweet | small | d g
  Tea Biscuits | shortbread, digestive biscuits, ginger biscuits, wafers | - | small | d g
 Chocolate
  Chocolate Bars | milk chocolate bar, dark chocolate bar, white chocolate bar | chocolate | small | d *
  Boxed Chocolates | chocolate truffles, assorted chocolates, pralines | - | small | d 12
  Easter & Festive Chocolate | chocolate egg, chocolate coins, advent calendar | - | each | d 4
 Sweets
  Gummies & Jellies | fruit gummies, sour gummies, jelly beans | fruit | small |
  Mints & Gum | peppermints, chewing gum | mint | pack |
  Marshmallows | marshmallows, mini marshmallows | - | small | 12
 Jerky | beef jerky, biltong, turkey jerky | heat | small | m
Frozen
 Ice Cream
  Ice Cream Tubs | ice cream, gelato, frozen custard | icecream | tub | d 7 *
  Ice Lollies | ice lollies, fruit bars | fruit | pack | 7
  Plant-Based Ice Cream | oat ice cream, coconut ice cream | icecream | tub | 7
  Ice Cream Cones | ice cream cones, waffle bowls | - | pack | g 7
 Frozen Vegetables
  Peas & Sweetcorn | garden peas, petits pois, sweetcorn | - | big |
  Vegetable Mixes | mixed vegetables, spinach portions, edamame | - | big |
 Frozen Fruit | frozen mixed berries, frozen mango, smoothie mix | - | mid |
 Frozen Potatoes
  Chips & Fries | oven chips, french fries, sweet potato fries | - | big |
  Hash Browns & Wedges | hash browns, potato wedges, potato waffles | savoury | mid |
 Frozen Pizza
  Family Pizza | family pizza, deep pan pizza, thin pizza | pizza | mid | d g
  Pizza Snacks | mini pizzas, pizza rolls | pizza | mid | d g
 Frozen Meals
  Vegetarian Meals | vegetable lasagne, bean burrito, vegetable curry | - | mid | d
  Meat Meals | chicken pie, beef stew, chicken tikka | - | mid | m
  Dumplings & Spring Rolls | gyoza, spring rolls, bao buns | - | mid | g
 Frozen Fish
  Fish Fingers & Breaded Fish | fish fingers, breaded cod | - | pack | f g
  Frozen Seafood | frozen prawns, seafood mix | - | mid | f
 Frozen Bakery
  Waffles & Pancakes | toaster waffles, mini pancakes | - | pack | g d
Drinks
 Water
  Still Water | still water, spring water | - | bottlepack | p
  Sparkling Water | sparkling water, flavoured sparkling water | soda | bottlepack | p 7
 Soft Drinks
  Cola | cola, diet cola, zero cola | - | bottlepack | 7
  Lemonade & Fruit Soda | lemonade, fruit soda, orange soda | soda | bottlepack | 7
  Mixers | tonic water, ginger ale, soda water | - | ml | 7
  Iced Tea | iced tea | fruit | ml | 7
 Juice
  Orange & Citrus Juice | orange juice, grapefruit juice, lemon juice | - | litre | p
  Apple & Berry Juice | apple juice, cranberry juice, grape juice | - | litre | p
  Smoothies | smoothie, green smoothie | smoothie | ml | p
 Coffee
  Ground Coffee | ground coffee, filter coffee, espresso grind | coffee | small | p *
  Coffee Beans | coffee beans, espresso beans | coffee | mid | p
  Coffee Capsules | coffee capsules, espresso capsules | coffee | pack | p
  Instant Coffee | instant coffee, freeze-dried coffee | coffee | small |
 Tea
  Black Tea | breakfast tea, earl grey tea, chai tea | - | count |
  Green Tea | green tea, jasmine green tea, matcha | tea | count |
  Herbal Tea | herbal tea, infusion | tea | count | 1
 Hot Chocolate
  Cocoa Drinks | hot chocolate, malted drink | sweet | small | d 12
 Energy & Sports
  Energy Drinks | energy drink, sugar-free energy drink | soda | ml |
  Protein Shakes | protein shake, protein powder | sweet | ml | d
 Cordials | squash, cordial, elderflower cordial | soda | ml | 7
Wine & Beer
 Wine
  Red Wine | merlot, cabernet sauvignon, malbec, pinot noir, tempranillo | wine | bottle | w *
  White Wine | chardonnay, sauvignon blanc, riesling, pinot grigio | wine | bottle | w 7
  Rose Wine | rose, pink grenache | wine | bottle | w 7
  Sparkling Wine | brut sparkling, prosecco style sparkling, cava style brut | wine | bottle | w 12
 Beer
  Lager | lager, pilsner | - | bottlepack | w 7
  Ale & Stout | pale ale, india pale ale, stout, porter | beer | bottlepack | w
  Alcohol-Free Beer | alcohol-free lager, alcohol-free pale ale | - | bottlepack | 1
 Cider | apple cider, pear cider, berry cider | - | bottlepack | w 7
 Spirits
  Gin | london dry gin, pink gin | gin | bottle | w
  Whisky & Rum | blended whisky, single malt, spiced rum | - | bottle | w 12
  Vodka & Liqueurs | vodka, coffee liqueur, orange liqueur | - | bottle | w
Household
 Cleaning
  Surface Cleaners | multi-surface spray, kitchen spray, bathroom spray | scent | ml |
  Floor & Glass Cleaners | floor cleaner, glass cleaner | scent | litre |
  Sponges & Cloths | scouring sponges, microfibre cloths, dusters | - | pack |
 Laundry
  Laundry Detergent | laundry liquid, laundry powder, laundry capsules | scent | litre |
  Fabric Softener | fabric softener, scent beads | scent | litre |
 Dishwashing
  Washing-Up Liquid | washing-up liquid | scent | ml |
  Dishwasher Tablets | dishwasher tablets, dishwasher salt, rinse aid | - | count |
 Paper
  Toilet Paper | toilet paper, quilted toilet tissue | - | pack | p
  Kitchen Roll & Tissues | kitchen roll, facial tissues, napkins | - | pack |
 Kitchen Supplies
  Foil & Bags | aluminium foil, baking paper, freezer bags, cling film | - | each |
  Bin Bags | bin bags, compost bags | - | count |
 Barbecue & Party
  Charcoal & Firelighters | charcoal, briquettes, firelighters | - | big | 7
  Party Tableware | paper plates, paper cups, birthday candles | - | pack |
 Candles & Air Care
  Candles | scented candle, tea lights, pillar candle | scent | each | 12
  Air Fresheners | reed diffuser, room spray | scent | each |
 Batteries & Bulbs | aa batteries, aaa batteries, led bulb | - | pack | 12
Health, Beauty & Baby
 Hair Care
  Shampoo | shampoo, anti-dandruff shampoo, dry shampoo | scent | ml |
  Conditioner | conditioner, hair mask | scent | ml |
 Bath & Body
  Shower Gel | shower gel, body wash | scent | ml |
  Soap | bar soap, hand soap | scent | pack |
  Body Lotion | body lotion, hand cream | scent | ml | 1
  Sun Care | sun lotion, after sun | - | ml | 7
 Oral Care
  Toothpaste | toothpaste, whitening toothpaste | mint | tube |
  Toothbrushes & Floss | toothbrush, dental floss, mouthwash | - | each |
 Face Care
  Face Cream | day cream, night cream, face serum | scent | tube |
  Cleansers & Wipes | face wash, micellar water, cleansing wipes | - | ml |
 Deodorant | roll-on deodorant, deodorant stick, deodorant spray | scent | tube |
 Wellness
  Vitamins | multivitamin tablets, vitamin c tablets, omega-3 capsules | - | count | 1
  Cold & Flu | throat lozenges, cold relief sachets, nasal spray | - | pack | 1
 Baby Food
  Baby Purees | baby puree pouch, fruit puree, vegetable puree | babyfood | small | b p
  Baby Snacks | baby puffs, teething rusks, toddler biscuits | babyfood | small | b p
  Formula | infant formula, follow-on milk | - | mid | b d p
 Nappies & Wipes
  Nappies | newborn nappies, junior nappies, night nappies | - | count | b p
  Baby Wipes | baby wipes, water wipes | - | count | b p
 Baby Bath | baby shampoo, baby lotion, nappy cream | - | ml | b
Pets
 Dog Food
  Dry Dog Food | dry dog food, puppy kibble, senior dog food | petfood | sack | o
  Wet Dog Food | dog food tin, dog food tray, dog stew | petfood | pack | o p
  Dog Treats | dog chews, dental sticks, training treats | petfood | small | o
 Cat Food
  Dry Cat Food | dry cat food, kitten kibble | petfood | sack | c
  Wet Cat Food | cat food pouches, cat pate, cat food in jelly | petfood | pack | c p
  Cat Treats | cat treats, creamy cat snacks | petfood | small | c
 Cat Litter | clumping litter, wood litter | - | sack | c p
 Dog Accessories
  Walking & Waste Bags | dog waste bags, dog lead | - | count | o
 Wild Birds
  Bird Food | fat balls, bird seed, sunflower hearts | - | big | 1
"""

FLAVOURS = {
    "babyfood": "apple,banana,pear,carrot,sweet potato,mango,blueberry",
    "bagel": "plain,sesame,cinnamon raisin,poppy seed,onion",
    "bar": "chocolate,peanut butter,salted caramel,coconut,cranberry,blueberry,hazelnut,apple cinnamon",
    "beer": "citrus,hoppy,malty,smoked,coffee",
    "cereal": "honey,chocolate,apple cinnamon,strawberry,maple pecan,almond,plain",
    "cheese": "mild,mature,extra mature,smoked,garlic and herb,cranberry,black pepper,chive",
    "chocolate": "hazelnut,sea salt,almond,orange,raspberry,salted caramel,mint,coconut,chilli,coffee",
    "coffee": "light roast,medium roast,dark roast,decaf,vanilla,hazelnut,caramel,single origin",
    "crisp": "sea salt,salt and vinegar,sour cream and onion,barbecue,cheddar,sweet chilli,paprika,jalapeno",
    "dip": "classic,roasted red pepper,garlic,lemon and coriander,beetroot,chilli",
    "fish": "in spring water,in olive oil,in tomato sauce,lemon,chilli",
    "fruit": "strawberry,blueberry,peach,mango,raspberry,cherry,apricot,lemon,coconut,vanilla",
    "gin": "citrus,rhubarb,cucumber,elderflower",
    "heat": "mild,hot,extra hot,smoky,garlic,jalapeno",
    "icecream": "vanilla,chocolate,strawberry,salted caramel,mint chocolate,cookie dough,pistachio,mango,"
    "coffee,raspberry",
    "jam": "strawberry,raspberry,apricot,blackcurrant,cherry,orange,fig",
    "mint": "spearmint,peppermint,cool mint,cinnamon,herbal",
    "noodle": "chicken,beef,prawn,vegetable,curry,spicy",
    "oil": "mild,fruity,robust,lemon,garlic,chilli",
    "pasta filling": "spinach and ricotta,four cheese,mushroom,pumpkin,tomato and mozzarella",
    "petfood": "chicken,beef,salmon,turkey,lamb,duck,tuna",
    "pizza": "margherita,four cheese,mushroom,roasted vegetable,spinach,hot honey",
    "plantmilk": "original,unsweetened,vanilla,chocolate",
    "popcorn": "sea salt,sweet and salty,butter,caramel,cinnamon",
    "ricecake": "sea salt,plain,caramel,chocolate,cheddar",
    "sauce": "tomato and basil,roasted garlic,chilli,mushroom,olive,sweet pepper",
    "savoury": "sea salt,garlic,rosemary,smoked paprika,chilli,black pepper,lemon and herb,barbecue",
    "scent": "lavender,lemon,eucalyptus,rose,unscented,coconut,ocean breeze,aloe vera",
    "smoothie": "strawberry banana,mango,berry,apple and kale,pineapple,ginger",
    "soda": "lemon,orange,lime,grapefruit,cherry,ginger,elderflower,raspberry",
    "soup": "tomato,mushroom,lentil,carrot and coriander,pumpkin,leek and potato,minestrone",
    "sweet": "chocolate,vanilla,caramel,hazelnut,salted caramel,strawberry,lemon,peanut butter,cookie dough",
    "tea": "peppermint,chamomile,ginger,lemon,berry,jasmine,rooibos",
    "wine": "dry,oaked,fruity,crisp,reserve,spicy,velvety",
}

SIZES = {
    "big": "1 kg,1.5 kg,2 kg,5 kg",
    "bottle": "375 ml,500 ml,750 ml,1 L",
    "bottlepack": "500 ml,1.5 L,4 x 330 ml,6 x 330 ml,12 x 330 ml",
    "count": "20 count,40 count,80 count,100 count",
    "cup": "125 g,150 g,4 x 125 g,450 g,1 kg",
    "each": "each,small,large,2 pack",
    "eggs": "6 eggs,10 eggs,12 eggs,18 eggs",
    "herb": "20 g,30 g,50 g,100 g",
    "jar": "200 g,280 g,340 g,500 g",
    "litre": "500 ml,1 L,1.5 L,2 L",
    "loaf": "300 g,400 g,600 g,800 g",
    "loose": "500 g,750 g,1 kg,2 kg",
    "mid": "250 g,400 g,500 g,750 g",
    "ml": "150 ml,250 ml,330 ml,500 ml",
    "pack": "2 pack,4 pack,6 pack,12 pack",
    "sack": "800 g,2 kg,5 kg,12 kg",
    "small": "100 g,125 g,150 g,200 g,250 g",
    "tin": "200 g,240 g,400 g,800 g",
    "tub": "460 ml,500 ml,900 ml,2 L",
    "tube": "50 ml,75 ml,100 ml",
}

# Own labels sell in every department, as in most chains.
OWN_LABELS = "Corner Basket,Hearth Select,Plain & Simple"
BRANDS = {
    "Produce": "Hillcrest Farm,Green Furrow,Orchard Lane,Sunny Acre,Riverbend Growers,Little Sprout,"
    "Meadow Gate,Valley & Vine,Terra Buona",
    "Dairy & Eggs": "Clover Dell,Alpenhof,Moorland Dairy,White Pail,Silver Churn,Oatling,Nutkin,Morning Cup,"
    "Happy Hen,Fjordkilde,Velvet Spoon,Bright Pasture",
    "Meat & Fish": "Butcher's Yard,Oak & Ember,Northwater,Prairie Cut,Harbour Catch,Old Smokehouse,Rootwell,"
    "Greenfork,Drover's",
    "Deli": "Casa Mirto,La Petite Cave,Monte Fiore,Olivar,Kostas Table,Bottega Nove,Cellar Door Dairy,"
    "Zaatar House,Salumeria Rossi Blu,Noon Kitchen",
    "Bakery": "Miller's Loaf,Stone Hearth,Crumb & Co,Golden Sheaf,Brotzeit,Maison Levain,Sweet Tin,Free Grain,"
    "Rise & Roll",
    "Pantry": "Nonna Pia,Sole d'Oro,Bengal Spice Co,Lotus Wok,El Comal,Harvest Tin,Grain Store,Bee Meadow,"
    "Copper Kettle,Mill Road,Red Lantern,Tahina,Larder No 4,Sunrise Oats,Old Quay",
    "Snacks & Sweets": "Crackle & Crunch,Cacao Norte,Nutty Trail,Tall Popper,Bitterblatt,Jolly Wobble,Peak Bar,"
    "Salt Shed,Biscuit Row,Wild Handful,Fine Cracker Co,Dune Snacks",
    "Frozen": "Polar Pantry,Gelato Blu,Frost & Field,North Star,Scoop Street,Trattoria Fredda,Quick Fork,"
    "Pea Green,Snow Dumpling",
    "Drinks": "Spring Hollow,Zestino,Bean Harbour,Leaf & Kettle,Fizz Works,Orange Grove,Highland Roast,"
    "Volt Nine,Kaffeehaus Lind,Dew Point,Press & Pulp,Monsoon Tea",
    "Wine & Beer": "Quinta Alta,Domaine Serein,Three Barrels,Black Heron,Weissbach,Casa Roja,Copper Still,"
    "Harbour Brew,Vigna Chiara,Old Cooper",
    "Household": "Clean Slate,Brightly,Eco Nest,Fresh Linen Co,Sparkle Ten,Soft Fold,Hob & Home,Emberline",
    "Health, Beauty & Baby": "Pure Petal,Dr. Linden,Sea Mist,Botanica Uno,Mint Guard,Tiny Steps,Baby Clover,"
    "Vital Day,Silk & Stone,First Spoon",
    "Pets": "Barkley,Whisker & Co,Paw Larder,Field & Fetch,Purrfetta,Garden Wing",
}

# How often things are bought. Measured on the Instacart 2017 slice in ../shared/data (828,848 purchases), in
# per cent: produce 29.5, dairy and eggs 15.6, pantry with tins, pasta, breakfast and world foods 15.1,
# snacks 8.6, beverages 8.2, frozen 7.2, bakery 3.5, deli 3.2, personal care and babies 2.7, household 2.6,
# meat and seafood 2.2, alcohol 0.4, pets 0.3. Ours is flatter on purpose: produce would drown the recipes,
# and a pet's or baby's shelves are only visited by the households that have one.
DEPARTMENT_SHARE = {
    "Produce": 0.18,
    "Dairy & Eggs": 0.14,
    "Meat & Fish": 0.05,
    "Deli": 0.07,
    "Bakery": 0.06,
    "Pantry": 0.14,
    "Snacks & Sweets": 0.11,
    "Frozen": 0.06,
    "Drinks": 0.08,
    "Wine & Beer": 0.03,
    "Household": 0.03,
    "Health, Beauty & Baby": 0.03,
    "Pets": 0.02,
}

# What crosses departments: (recipe, best month or 0, shelves).
RECIPES = (
    ("cheese board", 12, "Brie & Camembert,Olives,Crackers for Cheese,Red Wine,Grapes"),
    ("blue cheese board", 12, "Blue Cheese,Crackers for Cheese,Nuts,Apples & Pears,Red Wine"),
    ("greek salad", 7, "Feta & Halloumi,Tomatoes,Cucumbers & Courgettes,Olives,Olive Oil"),
    ("spaghetti bolognese", 0, "Dried Pasta,Minced Beef,Tinned Tomatoes,Onions & Garlic,Hard Italian Cheese"),
    ("pasta night", 0, "Dried Pasta,Tomato Pasta Sauce,Mozzarella,Fresh Herbs"),
    ("tacos", 0, "Mexican,Minced Beef,Tortillas & Wraps,Guacamole & Salsa,Sour Cream"),
    ("veggie burritos", 0, "Tortillas & Wraps,Beans & Pulses,Avocados,Ready Rice,Hot Sauce"),
    ("thai curry", 0, "Thai & Coconut,Chicken Breast & Thighs,Rice,Peppers & Chillies,Fresh Herbs"),
    ("tikka night", 0, "Indian,Chicken Breast & Thighs,Rice,Naan,Plain Yogurt"),
    ("dal", 1, "Beans & Pulses,Ground Spices,Tinned Tomatoes,Rice,Onions & Garlic"),
    ("tofu stir-fry", 0, "Tofu & Tempeh,Stir-Fry Vegetables,Asian Noodles,Japanese & Chinese"),
    ("burgers", 7, "Beef Burgers,Burger & Hot Dog Buns,Ketchup & Barbecue Sauce,Charcoal & Firelighters,Lager"),
    ("hot dogs", 7, "Frankfurters,Burger & Hot Dog Buns,Mustard,Pickles"),
    ("plant barbecue", 7, "Plant Burgers & Sausages,Burger & Hot Dog Buns,Sweetcorn,Salad Kits"),
    ("sunday roast", 1, "Beef Roasts & Stewing,Potatoes,Root Vegetables,Stock Cubes & Broth,Red Wine"),
    ("roast chicken", 0, "Whole Chicken,Potatoes,Broccoli & Cabbage,Butter"),
    ("fish supper", 0, "White Fish,Chips & Fries,Peas & Sweetcorn,White Wine"),
    ("salmon dinner", 5, "Salmon & Trout,Asparagus & Green Beans,Potatoes,White Wine"),
    ("full breakfast", 0, "Bacon,Eggs,Fresh Sausages,Sandwich Bread,Orange & Citrus Juice"),
    ("avocado brunch", 0, "Avocados,Sourdough & Artisan Bread,Eggs,Smoothies,Coffee Beans"),
    ("yogurt bowl", 0, "Greek Yogurt,Cereal,Berries,Honey"),
    ("porridge", 1, "Oats & Porridge,Oat Drinks,Bananas,Nut Butter"),
    ("pancake day", 2, "Flour,Eggs,Whole Milk,Syrups,Berries"),
    ("birthday baking", 0, "Flour,Butter,Sugar & Sweeteners,Eggs,Party Tableware"),
    ("christmas baking", 12, "Flour,Baking Chocolate & Nuts,Ground Spices,Butter,Sugar & Sweeteners"),
    ("movie night", 0, "Popcorn,Potato Crisps,Cola,Chocolate Bars,Family Pizza"),
    ("party snacks", 0, "Tortilla Chips,Guacamole & Salsa,Lager,Potato Crisps,Nuts"),
    ("mezze", 7, "Hummus,Pita,Olives,Middle Eastern,Feta & Halloumi"),
    ("gin and tonic", 7, "Gin,Mixers,Citrus Fruit,Nuts"),
    ("hot chocolate evening", 12, "Cocoa Drinks,Marshmallows,Whipping & Cooking Cream,Tea Biscuits"),
    ("ice cream sundae", 7, "Ice Cream Tubs,Ice Cream Cones,Berries,Syrups"),
    ("soup and bread", 1, "Chilled Soup,Sourdough & Artisan Bread,Butter"),
    ("lunch box", 9, "Sandwich Bread,Ham & Prosciutto,Cheddar,Apples & Pears,Cereal Bars"),
    ("kids' tea", 0, "Fish Fingers & Breaded Fish,Chips & Fries,Ketchup & Barbecue Sauce,Kids' Yogurt"),
    ("baby week", 0, "Nappies,Baby Wipes,Baby Purees,Baby Snacks"),
    ("puppy", 0, "Dry Dog Food,Dog Treats,Walking & Waste Bags"),
    ("cat week", 0, "Wet Cat Food,Cat Litter,Cat Treats"),
    ("spring clean", 4, "Surface Cleaners,Sponges & Cloths,Floor & Glass Cleaners,Bin Bags"),
    ("wash day", 0, "Laundry Detergent,Fabric Softener"),
    ("cold remedy", 1, "Cold & Flu,Herbal Tea,Honey,Citrus Fruit"),
)

# (shelf, second path): products that a real shop also lists elsewhere.
SECOND_PATHS = (
    ("Gluten-Free Bread", ("Health, Beauty & Baby", "Wellness", "Free From")),
    ("Gluten-Free & Pulse Pasta", ("Health, Beauty & Baby", "Wellness", "Free From")),
    ("Protein Bars", ("Drinks", "Energy & Sports", "Protein Shakes")),
    ("Hummus", ("Snacks & Sweets", "Crisps & Chips", "Dips for Chips")),
    ("Feta & Halloumi", ("Dairy & Eggs", "Everyday Cheese", "Feta & Halloumi")),
    ("Hard Italian Cheese", ("Pantry", "Pasta Sauce", "Cheese for Pasta")),
    ("Tortillas & Wraps", ("Pantry", "World Foods", "Mexican")),
    ("Naan", ("Pantry", "World Foods", "Indian")),
    ("Tofu & Tempeh", ("Pantry", "World Foods", "Japanese & Chinese")),
    ("Sparkling Wine", ("Household", "Barbecue & Party", "Celebrations")),
    ("Mixers", ("Wine & Beer", "Spirits", "Mixers")),
    ("Plant-Based Yogurt", ("Dairy & Eggs", "Plant Milk", "Plant Desserts")),
    ("Crackers for Cheese", ("Deli", "Specialty Cheese", "Crackers for Cheese")),
)

USES = {
    "Produce": "Wash before use.|Grown for flavour and picked when ripe.|Good raw, roasted or in a salad.",
    "Dairy & Eggs": "Keep chilled.|Made with milk from small herds.|For breakfast, baking or a quick snack.",
    "Meat & Fish": "Cook thoroughly before eating.|For the grill, the pan or the oven.|Keep chilled.",
    "Deli": "Serve at room temperature.|For a sharing board or a picnic.|Ready to eat.",
    "Bakery": "Baked every morning.|Best on the day, or freeze and toast.|Soft inside with a golden crust.",
    "Pantry": "Store in a cool, dry place.|A cupboard staple for weeknight cooking.|Keep opened packs cold.",
    "Snacks & Sweets": "Made for sharing.|In a resealable bag.|A little treat between meals.",
    "Frozen": "Cook from frozen.|Frozen within hours to keep the taste.|Keep at minus 18 degrees.",
    "Drinks": "Serve chilled or over ice.|Shake gently before opening.|Once opened, drink within three days.",
    "Wine & Beer": "Serve at cellar temperature.|Pairs with cheese and cold cuts.|Please drink responsibly.",
    "Household": "Keep out of reach of children.|Works in one wipe.|Refill packs save plastic.",
    "Health, Beauty & Baby": "Dermatologically tested.|For daily use.|Kind to sensitive skin.",
    "Pets": "A complete food or treat for adult pets.|Always provide fresh water.|No artificial colours.",
}
# Marketing copy that says nothing about the product: real feeds are full of it.
COPY = "Taste the difference today.|A family favourite since 1962.|New look, same great quality.|Simply good."


@dataclass(frozen=True)
class Shelf:
    """One leaf of the tree.

    Attributes:
        path: Department, aisle and (unless the aisle is the leaf) shelf.
        nouns: What stands there, in lower case.
        flavours: Names, or () where the products have none.
        sizes: Pack sizes.
        marks: The letters and `*` of the table.
        peak_month: 1-12, or 0 for the whole year.
    """

    path: tuple[str, ...]
    nouns: tuple[str, ...]
    flavours: tuple[str, ...]
    sizes: tuple[str, ...]
    marks: frozenset[str]
    peak_month: int


def read_shelves() -> tuple[Shelf, ...]:
    """The leaves of `TREE`, in its order."""
    shelves: list[Shelf] = []
    above: list[str] = []
    for line in TREE.strip("\n").split("\n"):
        indent = len(line) - len(line.lstrip())
        name, *fields = (field.strip() for field in line.split("|"))
        above = [*above[:indent], name]
        if fields:
            nouns, family, sizes, marks = fields
            words = marks.split()
            shelves.append(
                Shelf(
                    path=tuple(above),
                    nouns=tuple(noun.strip() for noun in nouns.split(",")),
                    flavours=tuple(FLAVOURS[family].split(",")) if family != "-" else (),
                    sizes=tuple(SIZES[sizes].split(",")),
                    marks=frozenset(word for word in words if not word.isdigit()),
                    peak_month=next((int(word) for word in words if word.isdigit()), 0),
                )
            )
    return tuple(shelves)
